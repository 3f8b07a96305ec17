"""A line of text on the screen."""

from __future__ import annotations

from textual.widgets import Static


class Line(Static):
    """Text as it is, without markup; away while it is empty, and drawn anew only when it changes."""

    def __init__(self, text: str = "", *, id: str, classes: str = "") -> None:
        super().__init__(text, id=id, classes=classes, markup=False)
        self.text = text

    def say(self, text: str) -> None:
        """Show this text from now on."""
        if text != self.text:
            self.text = text
            self.update(text)
        self.display = bool(text)
