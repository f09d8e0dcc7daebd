"""What a human does to sessions: attach, stop and start, interrupt and compact."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from iapeer.core import env
from iapeer.core.errors import (
    DaemonDown,
    IapeerError,
    InvalidInput,
    RuntimeUnknown,
    TmuxError,
    UsageError,
)
from iapeer.core.settings import Settings

from . import output, wire
from .context import load_settings
from .grammar import Call
from .listing import fetch

STOP_TIMEOUT_S = 60.0
"""A stop takes effect within seconds; ending a session that lingers takes longer."""

DETACH_KEYS = "Ctrl-] d"
"""Our own tmux prefix, then tmux's key for detach."""

HINT_MS = 5000
"""How long it is shown; the next key press ends it."""

_REFUSED = {
    "foreign_unit": "refused-foreign-launchd",
    "service_managed": "refused-infra",
    RuntimeUnknown.code: "refused-undeclared-runtime",
}
"""The contract's words for why a verb does nothing to a peer, by the daemon's code."""

FIRST_WORD_S = 1.0
NEXT_WORD_S = 10.0
"""When a wait is first mentioned, and how often again."""


def attach(call: Call) -> int:
    """Wake the peer if it sleeps and become `tmux attach` on its session.

    Returns only if that fails: the exit status is tmux's. With `--json` the peer is woken and
    where to attach is printed.
    """
    peer = call.need("peer")
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if not (is_terminal or call.has("json")):
        raise InvalidInput("attach needs a terminal", hint=f"send it a message: iapeer send {peer}")
    point = bring_up(call, "wake", peer)["attach"]
    if call.has("json"):
        output.emit(point)
        return 0
    woke = "woke + " if point.get("woke") else ""
    output.warn(f"{woke}attaching {point['identity']}…")
    return become_tmux(load_settings(), point)


def bring_up(call: Call, verb: str, peer: str) -> dict[str, Any]:
    """Have the daemon bring a session up and return its answer; a daemon is started if need be."""
    settings = load_settings()
    limit_s = settings.boot_deadline_s + STOP_TIMEOUT_S
    runtime = call.get("runtime")
    try:
        with progress(f"waking {peer}"):
            return post(peer, verb, runtime, limit_s)
    except DaemonDown as down:
        from . import offline

        offline.start(down, call.verb.name)
    with progress(f"waking {peer}"):
        return post(peer, verb, runtime, limit_s)


def become_tmux(settings: Settings, point: Mapping[str, Any]) -> int:
    """Become `tmux attach`; returns only by raising TmuxError, when there is no tmux."""
    output.flush()
    environ = {key: value for key, value in os.environ.items() if key not in {"TMUX", "TMUX_PANE"}}
    # tmux switches to its own screen at once, and drops what a slow terminal has not read yet
    # (measured: tmux 3.3a flushes the output): what a human must know, tmux itself shows.
    hint = [";", "display-message", "-d", str(HINT_MS), f"leave with {DETACH_KEYS}"]
    attach_to = ["attach", "-t", f"={point['session']}"]
    arguments = [settings.tmux, "-S", point["socket"], *attach_to, *hint]
    try:
        os.execvpe(settings.tmux, arguments, environ)  # noqa: S606 - no shell is the point
    except OSError as error:
        raise TmuxError(
            f"{settings.tmux} can't be run: {error.strerror}",
            hint=f"install tmux, or name it in {env.TMUX}",
        ) from None


def stop(call: Call) -> int:
    """End sessions and refuse further messages."""
    return for_each(call, "stop")


def start(call: Call) -> int:
    """Allow messages again."""
    return for_each(call, "start")


def interrupt(call: Call) -> int:
    """Stop the running turn of a live session, as Escape at its keyboard would."""
    return _control(call, "interrupt", STOP_TIMEOUT_S)


def compact(call: Call) -> int:
    """Shorten the context of a session and wait until its own program says that it is done."""
    settings = load_settings()
    limit_s = settings.compact_done_timeout_ms / 1000 + settings.boot_deadline_s + STOP_TIMEOUT_S
    return _control(call, "compact", limit_s)


def _control(call: Call, verb: str, timeout_s: float) -> int:
    peer = call.need("peer")
    with progress(f"waiting for {peer}"):
        answer = post(peer, verb, call.get("runtime"), timeout_s)
    runtime = answer["identity"].split("-", 1)[0]
    if call.has("json"):
        output.emit({"personality": peer, "runtime": runtime, "action": verb, **_extra(answer)})
    else:
        after = " after resume" if answer.get("resumed") else ""
        output.say(f"{verb} → {peer} ({runtime}){after}")
    return 0


def _extra(answer: dict[str, Any]) -> dict[str, Any]:
    return {"resumed": answer["resumed"]} if "resumed" in answer else {}


def for_each(call: Call, verb: str) -> int:
    """Do the verb to the named peer or to all; a peer that fails does not spare the others.

    Returns 1 when one failed.
    """
    if call.has("all") == call.has("peer"):
        raise UsageError("takes the name of a peer, or --all for every one")
    names = [row.personality for row in fetch()] if call.has("all") else [call.need("peer")]
    results: list[dict[str, Any]] = []
    failed = False
    for name in names:
        try:
            answer = post(name, verb, call.get("runtime"), STOP_TIMEOUT_S)
        except IapeerError as error:
            if not call.has("all"):
                raise
            output.fail(verb, f"{name}: {error.message}", error.hint)
            failed = True
            continue
        actions: dict[str, str] = answer["actions"]
        results.extend(
            {"personality": name, "runtime": runtime, "action": action}
            for runtime, action in actions.items()
        )
    if call.has("json"):
        output.emit(results)
    else:
        for done in results:
            output.say(f"{done['personality']} ({done['runtime']}): {done['action']}")
        if not names:
            output.say("no peers registered")
    return 1 if failed else 0


def post(peer: str, verb: str, runtime: str | None, timeout_s: float) -> dict[str, Any]:
    """Ask the daemon for a verb on a peer; a refusal that other programs look for says its word."""
    body = {} if runtime is None else {"runtime": runtime}
    try:
        return wire.ask("POST", wire.peer_path(peer, verb), body, timeout_s=timeout_s)
    except IapeerError as error:
        word = _REFUSED.get(error.code)
        if word is None:
            raise
        message = f"{word}: {error.message}"
        raise IapeerError(message, hint=error.hint, code=error.code) from None


@contextmanager
def progress(doing: str) -> Iterator[None]:
    """Say on stderr what is being waited for, if it takes longer than a moment."""
    done = threading.Event()

    def talk() -> None:
        waited_s = FIRST_WORD_S
        while not done.wait(FIRST_WORD_S if waited_s == FIRST_WORD_S else NEXT_WORD_S):
            output.warn(f"{doing}…" + (f" ({waited_s:.0f} s)" if waited_s > FIRST_WORD_S else ""))
            waited_s += NEXT_WORD_S

    talker = threading.Thread(target=talk, daemon=True)
    talker.start()
    try:
        yield
    finally:
        done.set()
        talker.join()
