"""`iapeer send`: one message to one peer, within the 40 ms a hook may cost.

Nothing but os, json and the hot client is imported here (a test holds the list); whatever needs
more is the daemon's work.
"""
# pathlib costs more than the whole call; os.path is enough here.

from __future__ import annotations

import os
import sys

from iapeer.client import hot
from iapeer.core import env
from iapeer.core.errors import CallerError, DaemonDown, IapeerError, InvalidInput, UsageError

from . import output, wire

TYPE_CHECKING = False  # typing costs `send` 3 ms; a type checker takes this name for true
if TYPE_CHECKING:
    from typing import Any

    from .grammar import Call

FILE_MAX = 64_000
"""Bytes of a message file: 16,000 characters take at most four each in UTF-8."""

INTERRUPT_TIMEOUT_S = 60.0
"""Longest wait for a turn to be given up."""

_DELIVERED = frozenset({"landed", "seen"})
_LOST = frozenset({"failed", "expired"})

REASONS = {
    "composer": "someone is typing there; it goes in when they are done",
    "busy": "it is working and takes the next message when it has read this far",
    "waking": "its session is starting",
    "boot_limit": "other sessions are starting first",
    "serial": "it takes one message at a time and others are before this one",
    "stopped": "it was stopped; `iapeer start` lets messages in again",
    "broken": "its session failed to start several times; `iapeer status` says why",
    "offline": "it is not connected",
    "quota": "its account has reached a limit",
    "api_error": "its model does not answer",
}
"""Why a message waits, in plain words, by the daemon's reason."""


def send(call: Call) -> int:
    """Send what the command line says and print what came of it."""
    target = call.need("peer")
    body: dict[str, Any] = {"to": target, "message": _message(call)}
    for option in ("runtime", "topic", "key"):
        if call.has(option):
            body[option] = call.get(option)
    if call.has("attachment"):
        # The daemon lives in another folder: a relative path would mean nothing to it.
        body["attachments"] = [os.path.abspath(path) for path in call.every("attachment")]
    sender = _sender(call.get("from"))
    if sender is not None:
        body["from"] = sender
    _check_text(body)
    if call.has("interrupt"):
        _interrupt(body)
    try:
        answer = wire.ask("POST", "/api/v1/send", body, timeout_s=hot.SEND_TIMEOUT_S)
    except DaemonDown as down:
        return _send_offline(call, body, down)
    return _tell(answer, target, as_json=call.has("json"))


def _send_offline(call: Call, body: dict[str, Any], down: DaemonDown) -> int:
    """Accept the message here, then see to it that a daemon delivers it."""
    from . import offline  # while a daemon runs, `send` must not pay for this

    result = offline.accept(body)
    later = offline.LATER if result.state == "accepted" else ""
    _tell(result.to_json(), body["to"], as_json=call.has("json"), why=later)
    if call.has("no-start"):
        offline.leave(down)
    else:
        offline.start(down, call.verb.name)
    return 0


def _interrupt(body: dict[str, Any]) -> None:
    """End the running turn; the message then goes to the runtime that was in it.

    One that is in none is no error. Raises CallerError in a session, DaemonDown, ControlRefused's
    code for a runtime that can't be interrupted.
    """
    if os.environ.get(env.SESSION_TOKEN):
        raise CallerError(
            "a session may not interrupt another one",
            hint="send without --interrupt: it is read when the turn allows it",
            code="forbidden",
        )
    wanted = {"runtime": body["runtime"]} if "runtime" in body else {}
    path = wire.peer_path(body["to"], "interrupt")
    try:
        answer = wire.ask("POST", path, wanted, timeout_s=INTERRUPT_TIMEOUT_S)
    except IapeerError as error:
        if error.code != "not_live":
            raise
        return
    body["runtime"] = str(answer["identity"]).partition("-")[0]


def plain(state: str, reason: str) -> str:
    """Return why a message is in a state, for a person: never empty."""
    if reason:
        return REASONS.get(reason, reason)
    return "it is being handed over" if state == "in_flight" else "it is on its way"


def _message(call: Call) -> str:
    given = [name for name in ("text", "message", "message-file") if call.has(name)]
    if len(given) != 1:
        wrong = "no message is given" if not given else "the message is given more than once"
        raise UsageError(wrong, hint="use one of --message <text> and --message-file <file>")
    text = call.get(given[0]) or ""
    return _read(text) if given[0] == "message-file" else text


def _read(path: str) -> str:
    """Return the text of a message file, `-` being stdin. Raises InvalidInput."""
    what = "stdin" if path == "-" else f"message file {path}"
    try:
        data = _bytes(path)
        if len(data) > FILE_MAX:
            raise InvalidInput(
                f"{what} is larger than {FILE_MAX} bytes, and a message holds 16000 characters",
                hint="attach the file instead: --attachment <path>",
            )
        return data.decode("utf-8")
    except OSError as error:
        raise InvalidInput(f"{what} can't be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"{what} is not UTF-8 text (byte {error.start})", hint="attach it: --attachment <path>"
        ) from None


def _bytes(path: str) -> bytes:
    """Return what is there, and one byte more than allowed if there is more."""
    if path != "-":
        with open(path, "rb") as file:
            return file.read(FILE_MAX + 1)
    if sys.stdin is None:
        raise InvalidInput("stdin is closed")
    return sys.stdin.buffer.read(FILE_MAX + 1)


def _sender(stated: str | None) -> str | None:
    """Return the identity to send as; None when the session's token says it.

    Raises CallerError when nobody can be found to send as.
    """
    if stated is not None:
        if not all(stated.partition("-")):
            raise CallerError(
                f"invalid --from identity {stated!r}", hint="expected <runtime>-<peer>"
            )
        return stated
    if os.environ.get(env.SESSION_TOKEN):
        return None
    return os.environ.get(env.PEER_IDENTITY) or _resident()


def _resident() -> str:
    """Return the identity of the peer that lives in this folder or the nearest one above it.

    Only people come here, sessions are told who they are: reading the registry is worth its time.

    Raises CallerError, RegistryError.
    """
    from pathlib import Path

    from iapeer.registry.caller import caller_for_process
    from iapeer.registry.index import Registry
    from iapeer.storage.paths import Paths

    from .context import is_sandbox, load_settings

    registry = Registry(Paths(load_settings().root), sandbox=is_sandbox())
    return caller_for_process(os.environ, Path.cwd(), registry.snapshot()).address


def _check_text(body: dict[str, Any]) -> None:
    """Refuse bytes of the command line that are no text. Raises InvalidInput."""
    for name, value in body.items():
        for text in value if isinstance(value, list) else (value,):
            try:
                text.encode("utf-8")
            except UnicodeEncodeError:
                raise InvalidInput(f"the {name} is not UTF-8 text") from None


def _tell(answer: dict[str, Any], target: str, *, as_json: bool, why: str = "") -> int:
    """Print what came of it; `delivered` is said only where the daemon says landed or seen.

    `why` is said of a message that waits, instead of what its reason means.
    """
    state, reason = str(answer.get("state", "")), str(answer.get("reason") or "")
    to = answer.get("delivered_to") or {}
    where = f"{to.get('personality', target)} ({to.get('runtime', '?')})"
    number = answer.get("message_id", "?")
    if state in _LOST:
        raise IapeerError(
            f"message {number} to {where} {state}: {reason or 'no reason given'}",
            hint=f"iapeer trace {number} tells its story",
        )
    again = ", already sent with this key" if answer.get("repeated") else ""
    if as_json:
        output.emit(answer)
    elif state in _DELIVERED:
        output.say(f"delivered to {where}{again}")
    else:
        text = why or plain(state, reason)
        output.say(f"queued for {where}, {state}: {text} (message {number}{again})")
    return 0
