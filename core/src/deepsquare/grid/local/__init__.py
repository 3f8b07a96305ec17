"""A whole grid on one host: the chain and every service in one process tree, for trying, developing and testing."""
