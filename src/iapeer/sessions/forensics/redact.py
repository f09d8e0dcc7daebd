"""What must not stand in a report: secrets and the words of messages. Pure."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Collection, Sequence

SECRET = "[redacted]"  # noqa: S105 - what stands in place of one
MESSAGE = "[message]"

_KNOWN = re.compile(
    r"\b(?:sk|pk|rk|ghp|gho|ghs|ghu|glpat|xox[abprs]|AKIA|AIza|ya29|eyJ)[-_A-Za-z0-9.]{12,}"
)
_NAMED = re.compile(
    r"(?i)\b([a-z0-9_-]*(?:token|secret|passw(?:or)?d|api[-_]?key|bearer|authorization))"
    r"([\"']?\s*[:=]\s*[\"']?|\s+)(?:bearer\s+|basic\s+)?[^\s\"',;]{6,}"
)
_LONG = re.compile(r"[A-Za-z0-9_+=-]{24,}")
_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_HEX = re.compile(r"[0-9a-f]{24,}")
"""A token of ours, or a part of one that a narrow screen cut."""
_URL_USER = re.compile(r"(://)[^/\s:@]+:[^/\s@]+@")
_RANDOM_BITS = 3.6
"""Entropy per character from which a long word is taken for a secret: English has about 3."""

_SHORTEST = 6
"""A shared run of so many letters and digits makes a row part of a message."""
_NOT_WORD = re.compile(r"[\W_]+")


class Redactor:
    """Knows the digests of tokens and the bodies of messages that may be on a screen."""

    def __init__(self, digests: Collection[str] = (), bodies: Collection[str] = ()) -> None:
        self._digests = frozenset(digests)
        self._bodies = tuple(squeezed for body in bodies if (squeezed := _squeeze(body)))
        self._lines = tuple(
            squeezed
            for body in bodies
            for line in body.splitlines()
            if len(squeezed := _squeeze(line)) >= _SHORTEST
        )

    def text(self, text: str) -> str:
        """Return one line without anything that looks like, or is, a secret."""
        text = _URL_USER.sub(rf"\1{SECRET}@", text)
        text = _NAMED.sub(rf"\1\2{SECRET}", text)
        text = _KNOWN.sub(SECRET, text)
        return _LONG.sub(self._word, text)

    def screen(self, rows: Sequence[str]) -> list[str]:
        """Return rows of a screen without messages and secrets; what is said of them stays."""
        out: list[str] = []
        inside = False
        for row in rows:
            opens, closes = "<iap" in row, "</iap>" in row
            if inside or opens or closes or self._is_message(row):
                if not out or out[-1] != MESSAGE:
                    out.append(MESSAGE)
            else:
                out.append(self.text(row))
            inside = (inside or opens) and not closes
        return out

    def _is_message(self, row: str) -> bool:
        shown = _squeeze(row)
        if len(shown) < _SHORTEST:
            return False
        return any(shown in body for body in self._bodies) or any(
            line in shown for line in self._lines
        )

    def _word(self, match: re.Match[str]) -> str:
        word = match[0]
        digest = hashlib.sha256(word.encode()).hexdigest()
        if digest in self._digests:
            return SECRET
        if _UUID.fullmatch(word):
            return word
        if _HEX.fullmatch(word):
            return SECRET
        has_both = any(c.isdigit() for c in word) and any(c.isalpha() for c in word)
        return SECRET if has_both and _entropy(word) > _RANDOM_BITS else word


def _squeeze(text: str) -> str:
    """Keep letters and digits only: a screen wraps, indents and frames what it shows."""
    return _NOT_WORD.sub("", text).casefold()


def _entropy(word: str) -> float:
    counts = Counter(word)
    return -sum(n / len(word) * math.log2(n / len(word)) for n in counts.values())
