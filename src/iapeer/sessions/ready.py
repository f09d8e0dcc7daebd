"""The way of a session from its first process to an input surface that is ready."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable

from iapeer.core.errors import LaunchFailed, TmuxError
from iapeer.runtimes.spec import applies

from .model import TmuxSession
from .process import is_alive
from .screen import read_screen
from .sgr import plain

BOOT_POLL_S = 0.05
"""Between two looks at a booting screen (one look: 0.15 ms through the control client)."""
DIALOG_PAUSE_S = 0.5
"""After the keys for a dialog: a program that is still drawing it must not get them twice."""
SETTLED_S = 0.4
"""A screen without ready marks counts as ready when it has not changed for this long."""
WORDS_TRIES = 10
"""tmux reads the last words of a program a moment after the kernel tells of its end, or never:
3.3a loses those of 1 to 3 in 100 programs that end within the same millisecond (measured)."""
AUX = "aux"
"""Name of the tmux session in which a runtime's own server runs; no identity is called so."""


async def until_ready(
    session: TmuxSession, limit_s: float, connect: Callable[[TmuxSession], Awaitable[None]]
) -> None:
    """Look until the input surface is ready, answering known dialogs as a person would.

    `connect` opens the channel to the runtime's own server. Raises LaunchFailed (`exited`,
    `not_ready`), TmuxError.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limit_s
    shown, changed, tail = "", loop.time(), ""
    while loop.time() < deadline:
        facts = await session.tmux.facts()
        if facts is None:
            raise LaunchFailed(
                f"{session.identity.address}: tmux session vanished during boot", code="exited"
            )
        # tmux scrolls a dead pane up by one row for its own line: a lone last word is there.
        text = await session.tmux.capture(styled=True, history_lines=int(facts.pane_dead))
        screen = read_screen(text, session.marks)
        if text != shown:
            shown, changed = text, loop.time()
        if facts.pane_dead:
            raise LaunchFailed(
                f"{session.identity.address}: the program ended during boot "
                f"({_how(facts.dead_status, facts.dead_signal)})"
                + (f"; its last words: {screen.tail}" if screen.tail else ""),
                hint=f"run it by hand in {session.cwd} to see why",
                code="exited",
            )
        tail = screen.tail
        if session.aux is not None and not is_alive(*session.aux):
            raise await _server_failed(session)
        _check_failures(session, text, tail)
        if screen.dialog is not None:
            if screen.dialog.keys:
                await session.tmux.keys(*screen.dialog.keys)
                await asyncio.sleep(DIALOG_PAUSE_S)
        elif _ready(
            session, marks_say=screen.ready, settled=loop.time() - changed >= SETTLED_S
        ) and await _is_connected(session, connect):
            return
        await asyncio.sleep(BOOT_POLL_S)
    raise LaunchFailed(
        f"{session.identity.address}: never-became-ready within {limit_s:g} s "
        "(stuck at a startup prompt or boot hang)" + (f"; pane tail: {tail}" if tail else ""),
        hint=f"run it by hand in {session.cwd}, or raise boot_deadline_s",
        code="not_ready",
    )


async def _is_connected(
    session: TmuxSession, connect: Callable[[TmuxSession], Awaitable[None]]
) -> bool:
    """Whether its own server, if it has one, knows the conversation.

    A terminal that looks ready may still be loading, and end because it can't go on with the
    conversation it was told (measured: Codex 0.169.0 draws its composer 0.3 s before).
    """
    await connect(session)
    return session.channel is None or bool(session.channel.native_id)


def _check_failures(session: TmuxSession, text: str, tail: str) -> None:
    """Raise LaunchFailed for a screen that no key of ours gets past."""
    failures = [
        failure
        for failure in session.spec.screen.failures
        if applies(failure.when, isolated=session.isolated)
    ]
    shown = plain(text) if failures else ""
    for failure in failures:
        if re.search(failure.match, shown, re.MULTILINE):
            raise LaunchFailed(
                f"{session.identity.address}: only a person can go on; its screen ends: {tail}",
                hint=failure.hint,
                code="needs_person",
            )


async def _server_failed(session: TmuxSession) -> LaunchFailed:
    """Return what to say when the program's own server ended during boot: its last words."""
    words = ""
    with contextlib.suppress(TmuxError):
        for _ in range(WORDS_TRIES):
            words = read_screen(await session.tmux.text_of(AUX), session.marks).tail
            if words:
                break
            await asyncio.sleep(BOOT_POLL_S)
    argv = session.spec.launch.server_argv
    return LaunchFailed(
        f"{session.identity.address}: its own server ended during boot"
        + (f"; its last words: {words}" if words else ""),
        hint=f"run it by hand in {session.cwd} to see why: {' '.join(argv[:2])}",
        code="exited",
    )


def _ready(session: TmuxSession, *, marks_say: bool, settled: bool) -> bool:
    """Go by the marks where the runtime has any, else by a screen that has settled."""
    return marks_say if session.spec.screen.ready else settled


def _how(status: int | None, signal: int | None) -> str:
    if signal is not None:
        return f"killed by signal {signal}"
    return f"exit status {status}" if status is not None else "nobody knows how"
