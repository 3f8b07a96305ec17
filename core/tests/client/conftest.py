"""The real chain of the chain's tests."""

from core.tests.chain.conftest import parties

__all__ = ["parties"]
