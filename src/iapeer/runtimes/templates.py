"""Placeholders of manifest strings: which exist, and how they are filled in.

`{name}` stands for a value, `{{` and `}}` for the braces themselves; a word that begins with
`{?name}` is there only when that value is not empty. There is no placeholder for a session's token
or for a message: both would show in the process list of every user.
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
    "cwd_real": "the peer's folder with all links resolved",
    "cwd_quoted": "the same between quotes, as JSON and TOML write it",
    "cwd_slug": "the same with every character but ASCII letters and digits turned into -",
    "session_id": "the program's own session: a new UUID when fresh, the earlier one when resumed",
    "mcp_url": "URL of the daemon's MCP endpoint",
    "state_dir": "a private folder (0700) of this peer and runtime",
    "transcript": "the expanded evidence.transcript",
    "prompt_hook": "argv of our prompt hook as a JSON list of strings",
    "hook": "command line of our hook, quoted for a shell",
    "home": "where the program keeps its configuration: the user's home, or the peer's own",
    "isolated": "not empty when the peer has a configuration home of its own",
    "system_prompt": "path of the composed system prompt, empty without one",
    "endpoint": "address of the program's own server (launch.endpoint)",
    "port": "the number in it",
    "secret": "a new random word per start, for the program's own server; in launch.env only",
    "root": "not empty when we run as root",
    "pid": "process id of the program; in evidence.status_file only",
}
"""Every placeholder and what it stands for."""

NEVER = frozenset({"token", "message", "body", "text", "prompt", "envelope"})
"""Names people may try; refused with the reason."""

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_CONDITION = re.compile(r"\{\?([a-z_]+)\}")


def placeholders(template: str) -> frozenset[str]:
    """Return the names a template uses.

    Raises ManifestError for a lone brace, an unknown name and a name of `NEVER`.
    """
    names = set()
    condition = _CONDITION.match(template)
    if condition is not None:
        names.add(_known(condition.group(1), template))
        template = template[condition.end() :]
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
        names.add(_known(name, template))
    return frozenset(names)


def _known(name: str, template: str) -> str:
    if name not in PLACEHOLDERS:
        raise ManifestError(
            f"{template!r}: unknown placeholder {{{name}}}",
            hint=f"known: {', '.join(sorted(PLACEHOLDERS))}",
        )
    return name


def expand(templates: Iterable[str], values: Mapping[str, str]) -> list[str]:
    """Fill values into templates; each stays one string whatever the value holds, or goes.

    Raises ManifestError for a placeholder without a value and a malformed template.
    """
    filled = (expand_one(template, values) for template in templates)
    return [text for text in filled if text is not None]


def expand_one(template: str, values: Mapping[str, str]) -> str | None:
    """Fill values into one template; None when its condition `{?name}` does not hold.

    Raises ManifestError.
    """
    condition = _CONDITION.match(template)
    if condition is None:
        return _fill(template, values)
    filled = _fill(template[condition.end() :], values)
    return filled if _value(condition.group(1), template, values) else None


def _value(name: str, template: str, values: Mapping[str, str]) -> str:
    if name not in values:
        raise ManifestError(
            f"{template!r}: no value here for {{{name}}}",
            hint=f"available: {', '.join(sorted(values))}",
        )
    return values[name]


def _fill(template: str, values: Mapping[str, str]) -> str:
    for name in sorted(placeholders(template)):
        _value(name, template, values)

    def fill(piece: re.Match[str]) -> str:
        name = piece.group(1)
        return piece.group()[0] if name is None else values[name]

    return _PIECE.sub(fill, template)
