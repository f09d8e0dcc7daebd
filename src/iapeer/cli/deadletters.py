"""`iapeer dead-letter`: messages that ended undelivered, and what is done about them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import msgspec

from iapeer.core.errors import DaemonDown, IapeerError, UsageError

from . import output, wire
from .context import load_settings
from .grammar import Call
from .messages import show

if TYPE_CHECKING:
    from iapeer.host.letters import OfflineHouse

AT_ONCE = 1000
"""Letters in one list and one order; who has more gives the order again."""
ORDER_TIMEOUT_S = 60.0
"""Each letter is a commit of its own."""

_DONE = {"redeliver": "redelivered", "drop": "dropped"}


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """What was done about one letter; unknown keys of the daemon's answer are left out."""

    id: str
    new_id: str = ""
    code: str = ""
    message: str = ""
    hint: str = ""


def dead_letter(call: Call) -> int:
    """List, redeliver or drop; returns 1 when one of the letters stays as it was."""
    action = call.need("action")
    if action == "list":
        if call.has("all") or call.has("message-id"):
            raise UsageError("list takes no message id and no --all")
        return _list(call)
    if action not in _DONE:
        raise UsageError(f"there is no action {action!r}", hint="list, redeliver or drop")
    if call.has("all") == call.has("message-id"):
        raise UsageError(f"{action} takes the id of a message, or --all for every one")
    if call.has("peer") and not call.has("all"):
        raise UsageError("--peer goes with --all")
    return _settle(call, action)


def _list(call: Call) -> int:
    found = _letters(call.get("peer"))
    if call.has("json"):
        output.emit([{key: item[key] for key in item if key != "body"} for item in found])
    else:
        show(found, "no dead letters")
    return 0


def _settle(call: Call, action: str) -> int:
    if call.has("all"):
        ids = [str(item["id"]) for item in _letters(call.get("peer"))]
    else:
        ids = [wire.message_path(call.need("message-id")).rpartition("/")[2]]
    found = _order(action, ids) if ids else []
    results = msgspec.convert(found, list[Settled])
    if call.has("json"):
        output.emit(found)
    else:
        for done in results:
            if not done.code:
                as_new = f" as {done.new_id}" if done.new_id else ""
                output.say(f"{done.id} {_DONE[action]}{as_new}")
        if not results:
            output.say("no dead letters")
    for done in results:
        if done.code:
            output.fail(f"dead-letter {action}", f"{done.id}: {done.message}", done.hint)
    return 1 if any(done.code for done in results) else 0


def _letters(peer: str | None) -> list[dict[str, Any]]:
    query = {"limit": str(AT_ONCE)} | ({} if peer is None else {"peer": peer})
    try:
        found: list[dict[str, Any]] = wire.ask("GET", f"/api/v1/dead-letters?{urlencode(query)}")[
            "messages"
        ]
    except DaemonDown:
        found = msgspec.to_builtins(_house().dead_letters(peer, AT_ONCE))
    return found


def _order(action: str, ids: list[str]) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = wire.ask(
            "POST", f"/api/v1/dead-letters/{action}", {"ids": ids}, timeout_s=ORDER_TIMEOUT_S
        )["results"]
    except DaemonDown as down:
        house = _house()
        done = house.redeliver(ids) if action == "redeliver" else house.drop(ids)
        if any(item.new_id for item in done):
            _say_who_delivers(down)
        found = msgspec.to_builtins(done)
    return found


def _say_who_delivers(down: IapeerError) -> None:
    output.warn(f"iapeer dead-letter: {down.message}: the messages wait until one does")
    output.warn(f"hint: {down.hint}")


def _house() -> OfflineHouse:
    from iapeer.host.letters import OfflineHouse

    return OfflineHouse(load_settings(), os.environ)
