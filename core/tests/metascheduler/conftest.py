from __future__ import annotations

from core.tests.chain.conftest import parties

__all__ = ["parties"]
