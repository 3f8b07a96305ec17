"""stub"""

from __future__ import annotations

from deepsquare.workflow.models import Use


class ResolvedUse(Use):
    pass
