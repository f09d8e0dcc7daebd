"""The line a person or a door writes in: characters and folded pastes."""

from __future__ import annotations

from .values import Value

FOLD_CHARS = 800
FOLD_LINES = 2
"""A paste with more characters or more line ends is shown as one placeholder."""

DRAFT_LIMIT = 1 << 20
"""Characters a draft may hold; what comes after is dropped."""


class Folded(Value):
    """A long paste: the text itself and what stands for it on the screen."""

    __slots__ = ("label", "text")

    def __init__(self, text: str, label: str) -> None:
        self.text = text
        self.label = label


class Composer:
    """A draft. `text()` is what will be sent, `shown()` what is drawn."""

    def __init__(self) -> None:
        self._parts: list[str | Folded] = []
        self._size = 0
        self._pastes = 0
        self.at_front = False
        """Whether the cursor stands before the draft, where nothing is to be erased."""

    def __bool__(self) -> bool:
        return bool(self._parts)

    def insert(self, text: str) -> None:
        """Add typed characters at the end."""
        room = DRAFT_LIMIT - self._size
        self._parts.extend(text[:room])
        self._size += len(text[:room])

    def paste(self, text: str) -> None:
        """Add a paste at the end, folded if it is long; pastes are numbered through the session."""
        newlines = text.count("\n")
        if len(text) <= FOLD_CHARS and newlines <= FOLD_LINES:
            self.insert(text)
            return
        kept = text[: DRAFT_LIMIT - self._size]
        self._pastes += 1
        lines = f" +{newlines} lines" if newlines else ""
        self._parts.append(Folded(kept, f"[Pasted text #{self._pastes}{lines}]"))
        self._size += len(kept)

    def backspace(self) -> None:
        """Take away the last character or the last folded paste as a whole."""
        if self._parts:
            part = self._parts.pop()
            self._size -= len(part.text if isinstance(part, Folded) else part)

    def clear(self) -> None:
        """Empty the draft."""
        self.at_front = False
        self._parts.clear()
        self._size = 0

    def text(self) -> str:
        """Return the draft with every paste in full."""
        return "".join(part.text if isinstance(part, Folded) else part for part in self._parts)

    def shown(self) -> str:
        """Return the draft with placeholders for folded pastes."""
        return "".join(part.label if isinstance(part, Folded) else part for part in self._parts)
