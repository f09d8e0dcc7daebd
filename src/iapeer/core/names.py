"""Names of peers and runtimes: how any text becomes one, and what counts as one."""

from __future__ import annotations

import re
import unicodedata
from typing import TypeGuard

NAME_MAX = 32
"""Longest personality or runtime, in characters."""

NAME_PATTERN = r"^[a-z][a-z0-9-]{0,31}$"
"""Personality, anchored, in the common subset of Python and JSON Schema (ECMA 262).

In Python use `is_valid_name`: `re.search` with `$` would let a trailing newline pass.
"""

RUNTIME_PATTERN = r"^[a-z][a-z0-9]{0,31}$"
"""Runtime id, anchored. It has no hyphen, so an address splits at its first one."""

_NAME = re.compile(NAME_PATTERN)
_RUNTIME = re.compile(RUNTIME_PATTERN)
_NOT_SLUG = re.compile(r"[^a-z0-9]+")
_APOSTROPHES = str.maketrans("", "", "'`")
_SILENT_CATEGORIES = frozenset("CPSZ")


def is_valid_name(text: object) -> TypeGuard[str]:
    """Tell whether `text` is a personality; anything but a string is not."""
    return isinstance(text, str) and _NAME.fullmatch(text) is not None


def is_valid_runtime(text: object) -> TypeGuard[str]:
    """Tell whether `text` is a runtime id; anything but a string is not."""
    return isinstance(text, str) and _RUNTIME.fullmatch(text) is not None


def normalize_name(text: str) -> str:
    """Return `text` as a personality: transliterated, lower case, hyphens for all the rest.

    Deterministic and idempotent; valid names are fixed points. The result is at most NAME_MAX
    characters and is never repaired: it may be empty or start with a digit, so check it with
    `is_valid_name`. Arabic and Hebrew are transliterated without vowels, which the contract
    leaves open.
    """
    text = text.replace("№", "No.")
    if not text.isascii():
        text = _transliterate(text)
    slug = _NOT_SLUG.sub("-", text.lower()).strip("-")
    return slug[:NAME_MAX].rstrip("-")


def _transliterate(text: str) -> str:
    # Imported here: most names are ASCII, and start-up time is a budget.
    from anyascii import anyascii

    return "".join(
        character if character.isascii() else _ascii_of(character, anyascii(character))
        for character in unicodedata.normalize("NFC", text)
    )


def _ascii_of(character: str, ascii_form: str) -> str:
    """Return what one non-ASCII character adds to a name, given its plain transliteration.

    Symbols, punctuation, separators, controls and "other numbers" only separate: anyascii
    would spell an emoji out (`:grinning:`) and read a circled one as `1`. Han syllables get
    blanks round them, because anyascii sets none (`BeiJing`). The apostrophes it writes for
    soft and hard signs are no separators (`Natal'ya` is `natalya`).
    """
    category = unicodedata.category(character)
    if category[0] in _SILENT_CATEGORIES or category == "No":
        return " "
    letters = ascii_form.translate(_APOSTROPHES)
    if unicodedata.name(character, "").startswith("CJK"):
        return f" {letters} "
    return letters
