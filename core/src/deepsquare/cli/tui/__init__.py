"""The full-screen view of `deepsquare top`. Only that command imports it: textual takes a while to load."""
