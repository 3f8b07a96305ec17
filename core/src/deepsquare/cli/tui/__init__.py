"""The full-screen view of `deepsquare top`. Only that command imports it: textual takes a while to load."""

import sqlite3

from deepsquare.errors import DeepSquareError

FAILURES = (DeepSquareError, OSError, sqlite3.Error)
"""What may go wrong at any time, and is said in words while the screen stays."""
