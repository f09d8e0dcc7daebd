"""What the environment tells this program."""

from __future__ import annotations

import json
from collections.abc import Mapping

from iapeer.core import env

from .values import Value

MISBEHAVIOURS = frozenset(
    {
        "swallow_enter",
        "late_enter",
        "late_clear",
        "keeps_paste",
        "exit_at_start",
        "hang_at_start",
        "dialog",
        "lose_queue",
        "slow_start",
        "crash_on_message",
        "no_hook",
        "no_transcript",
        "nothing_to_compact",
        "never_compacts",
        "gives_back",
    }
)


class Options(Value):
    """All settings. `misbehave` maps a switch to its argument, empty if it has none."""

    __slots__ = (
        "ghost",
        "hook",
        "identity",
        "mcp_url",
        "misbehave",
        "resumed",
        "session",
        "token",
        "transcript",
    )

    def __init__(self, environ: Mapping[str, str], *, resumed: bool = False) -> None:
        """Read the environment; ValueError says which variable is wrong."""
        self.misbehave = _switches(environ.get("DEMO_MISBEHAVE", ""))
        self.transcript = environ.get("DEMO_TRANSCRIPT", "")
        if "no_transcript" in self.misbehave:
            self.transcript = ""
        self.hook = _argv(environ.get("DEMO_PROMPT_HOOK", ""))
        if "no_hook" in self.misbehave:
            self.hook = ()
        self.ghost = environ.get("DEMO_GHOST") == "1"
        self.session = environ.get(env.SESSION_ID, "")
        self.identity = environ.get(env.PEER_IDENTITY, "")
        self.token = environ.get(env.SESSION_TOKEN, "")
        self.mcp_url = environ.get(env.MCP_URL, "")
        self.resumed = resumed

    def __repr__(self) -> str:
        return f"Options(identity={self.identity!r}, session={self.session!r})"

    def number(self, switch: str, default: float) -> float:
        """Return the numeric argument of a misbehaviour."""
        value = self.misbehave.get(switch, "")
        try:
            return float(value) if value else default
        except ValueError:
            raise ValueError(f"DEMO_MISBEHAVE: {switch}={value!r} is no number") from None


def _switches(text: str) -> dict[str, str]:
    switches = {}
    for item in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, value = item.partition("=")
        if name not in MISBEHAVIOURS:
            known = ", ".join(sorted(MISBEHAVIOURS))
            raise ValueError(f"DEMO_MISBEHAVE: unknown {name!r}; known: {known}")
        switches[name] = value
    return switches


def _argv(text: str) -> tuple[str, ...]:
    if not text:
        return ()
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(word, str) for word in found):
        raise ValueError("DEMO_PROMPT_HOOK is no JSON list of strings")
    return tuple(found)
