"""Placeholders of manifest strings: which exist, and how they are filled in.

`{name}` stands for a value, `{{` and `}}` for the braces themselves. There is no placeholder for a
session's token or for a message: both would show in the process list of every user.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from iapeer.core.errors import ManifestError

PLACEHOLDERS: Mapping[str, str] = {
    "python": "the interpreter iapeer runs under",
    "cwd": "the peer's folder",
    "identity": "<runtime>-<personality>",
    "personality": "the peer's name",
    "runtime": "this runtime's id",
    "session_id": "a new UUID per fresh session, the same one when it is resumed",
    "mcp_url": "URL of the daemon's MCP endpoint",
    "state_dir": "a private folder (0700) of this peer and runtime",
    "transcript": "the expanded evidence.transcript",
    "prompt_hook": "argv of our prompt hook as a JSON list of strings",
}
"""Every placeholder and what it stands for."""

NEVER = frozenset({"token", "message", "body", "text", "prompt", "envelope"})
"""Names people may try; refused with the reason."""

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def placeholders(template: str) -> frozenset[str]:
    """Return the names a template uses.

    Raises ManifestError for a lone brace, an unknown name and a name of `NEVER`.
    """
    names = set()
    for piece in _PIECE.finditer(template):
        if piece.group() in ("{{", "}}"):
            continue
        name = piece.group(1)
        if name is None:
            raise ManifestError(
                f"{template!r} has a lone {piece.group()!r}", hint="write {{ or }} for a brace"
            )
        if name in NEVER:
            raise ManifestError(
                f"{template!r}: {{{name}}} is refused: every user can read a process list",
                hint="tokens go by environment, messages through the door",
            )
        if name not in PLACEHOLDERS:
            raise ManifestError(
                f"{template!r}: unknown placeholder {{{name}}}",
                hint=f"known: {', '.join(sorted(PLACEHOLDERS))}",
            )
        names.add(name)
    return frozenset(names)


def expand(templates: Iterable[str], values: Mapping[str, str]) -> list[str]:
    """Fill values into templates; each template stays one string whatever the value holds.

    Raises ManifestError for a placeholder without a value and a malformed template.
    """
    return [_expand_one(template, values) for template in templates]


def _expand_one(template: str, values: Mapping[str, str]) -> str:
    missing = placeholders(template) - values.keys()
    if missing:
        raise ManifestError(
            f"{template!r}: no value here for {{{min(missing)}}}",
            hint=f"available: {', '.join(sorted(values))}",
        )

    def fill(piece: re.Match[str]) -> str:
        name = piece.group(1)
        return piece.group()[0] if name is None else values[name]

    return _PIECE.sub(fill, template)
