"""`iapeer messages`: what was sent on this host, newest first."""

from __future__ import annotations

import os
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import msgspec

from iapeer.core.errors import DaemonDown, InvalidInput, UsageError
from iapeer.core.states import MessageState

from . import output, wire
from .context import load_settings
from .grammar import Call

LIMIT = 50
LIMIT_MAX = 1000
BODIES_MAX = 50
GREP_MAX = 200
"""The daemon's own limits; the same while none runs."""

HEADERS = ("TIME", "ID", "FROM", "TO", "STATE", "TOPIC", "LENGTH", "BEGINS")


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One message as a list shows it; unknown keys of the daemon's answer are left out."""

    id: str
    at: float
    sender: str
    recipient: str
    state: str
    reason: str
    topic: str | None
    length: int
    dup: bool
    purged: bool
    quote: str


def messages(call: Call) -> int:
    """List the messages that match."""
    query = _query(call)
    try:
        found = wire.ask("GET", f"/api/v1/messages?{urlencode(query)}")["messages"]
    except DaemonDown:
        found = _offline(query)
    if call.has("json"):
        # Bodies come only when asked for; the key would promise one.
        output.emit([_without_body(item) for item in found])
    else:
        show(found, "no messages")
    return 0


def show(found: list[dict[str, Any]], nothing: str) -> None:
    """Print messages as a table: drawn on a terminal, one line each elsewhere."""
    lines = msgspec.convert(found, list[Line])
    if not lines:
        output.say(nothing)
    elif output.is_rich():
        output.table(HEADERS, [_cells(line) for line in lines])
    else:
        for line in lines:
            time, number, sender, to, state, topic, length, quote = _cells(line)
            about = f"  [{topic}]" if topic else ""
            output.say(f"{time}  {number}  {sender} -> {to}  {state}{about}  {length}  {quote}")


def _query(call: Call) -> dict[str, str]:
    """Return what is asked for, as the query string says it. Raises UsageError, InvalidInput."""
    if call.has("bodies") and not call.has("json"):
        raise UsageError("--bodies needs --json: a table holds no bodies")
    most = BODIES_MAX if call.has("bodies") else LIMIT_MAX
    query = {"limit": str(LIMIT)}
    for name in ("peer", "state", "grep", "limit"):
        value = call.get(name)
        if value is not None:
            query[name] = value
    limit = query["limit"]
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit) <= most):
        raise InvalidInput(f"--limit {limit} is no number from 1 to {most}")
    state = query.get("state")
    if state is not None and state not in set(MessageState):
        raise InvalidInput(
            f"there is no state {state!r}", hint=f"states: {', '.join(MessageState)}"
        )
    if len(query.get("grep", "")) > GREP_MAX:
        raise InvalidInput(f"--grep takes at most {GREP_MAX} characters")
    if call.has("bodies"):
        query["bodies"] = "1"
    return query


def _offline(query: dict[str, str]) -> list[dict[str, Any]]:
    from iapeer.host.letters import OfflineHouse
    from iapeer.routing.ports import MessageQuery

    state = query.get("state")
    found = OfflineHouse(load_settings(), os.environ).messages(
        MessageQuery(
            peer=query.get("peer"),
            state=MessageState(state) if state else None,
            grep=query.get("grep") or None,
            limit=int(query["limit"]),
            bodies="bodies" in query,
        )
    )
    plain: list[dict[str, Any]] = msgspec.to_builtins(found)
    return plain


def _without_body(item: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in item.items() if key != "body" or value is not None}


def _cells(line: Line) -> tuple[str, ...]:
    state = f"{line.state}: {line.reason}" if line.reason else line.state
    return (
        f"{datetime.fromtimestamp(line.at).astimezone():%Y-%m-%d %H:%M:%S}",
        line.id,
        line.sender,
        line.recipient,
        f"{state}, maybe twice" if line.dup else state,
        line.topic or "",
        str(line.length),
        "(body forgotten)" if line.purged else line.quote,
    )
