"""The program: waits for keys, threads and time in one `select`, and draws what follows."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
import tty

from .composer import Composer
from .keys import Decoder, Event
from .options import Options
from .screen_out import GLYPH, Screen, View
from .transcript import Transcript
from .turns import Work

SWALLOW_S = 0.5
"""Enters lost after start by `swallow_enter` (as measured in a real agent CLI)."""
TWICE_S = 2.0
"""Two C-c within this time leave."""
READ_BYTES = 65536

_GHOST = 'Try "SAY hello"'
_TRUST = "Do you trust this folder?"


def run(options: Options) -> int:
    """Run until told to leave; return the exit status. Needs a terminal on stdin."""
    misbehave = options.misbehave
    if "exit_at_start" in misbehave:
        return int(options.number("exit_at_start", 1))
    if "slow_start" in misbehave:
        time.sleep(options.number("slow_start", 2.0))
    saved = termios.tcgetattr(0)
    # DRAIN, not FLUSH: what was typed ahead stays.
    tty.setraw(0, termios.TCSADRAIN)
    screen = Screen(1)
    try:
        if "hang_at_start" in misbehave:
            return _hang()
        screen.start()
        if "dialog" in misbehave and not _trusted(screen):
            return 1
        return Loop(options, screen).run()
    finally:
        screen.stop()
        termios.tcsetattr(0, termios.TCSADRAIN, saved)


def _hang() -> int:
    while os.read(0, READ_BYTES):
        pass
    return 1


def _trusted(screen: Screen) -> bool:
    """Ask as the real programs do, with their trap: of the keys in one read only one counts."""
    yes = True
    decoder = Decoder()
    while True:
        first, second = (GLYPH, " ") if yes else (" ", GLYPH)
        screen.dialog([_TRUST, "", f"{first} 1. Yes", f"{second} 2. No, exit", ""])
        data = os.read(0, READ_BYTES)
        if not data:
            return False
        for event in [*decoder.feed(data), *decoder.flush()][:1]:
            if event == Event("key", "enter"):
                screen.wipe()
                return yes
            if event in (Event("key", "escape"), Event("key", "c-c")):
                return False
            if event.value in ("up", "1", "down", "2"):
                yes = event.value in ("up", "1")


class Loop:
    """State of the running program."""

    def __init__(self, options: Options, screen: Screen) -> None:
        self._options = options
        self._screen = screen
        self._composer = Composer()
        self._decoder = Decoder()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._work = Work(
            options,
            Transcript(options.transcript, options.session),
            say=self._say,
            wake=self._wake,
        )
        self._interrupted_at = -TWICE_S
        self._began = 0.0
        self._read_at = 0.0
        self._swallow = int(options.number("swallow_enter", 0))
        self._clear_at: float | None = None

    def run(self) -> int:
        """Serve keys until the end of input or of the work."""
        # tmux resizes its own picture up to 250 ms before the terminal tells: what was drawn in
        # between is garbage until it is drawn anew, and is taken for somebody's draft (measured).
        signal.signal(signal.SIGWINCH, lambda _number, _frame: None)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        name = self._options.identity or "nobody"
        self._say(f"demo agent as {name}{' (resumed)' if self._options.resumed else ''}")
        self._began = time.monotonic()
        while self._work.exit_code is None:
            readable, _, _ = select.select([0, self._wake_read], [], [], self._timeout())
            if 0 in readable:
                data = os.read(0, READ_BYTES)
                if not data:
                    return 0
                self._handle(self._decoder.feed(data))
                self._read_at = time.monotonic()
            elif 0 < self._decoder.wait_s <= time.monotonic() - self._read_at:
                self._handle(self._decoder.flush())
            if self._wake_read in readable:
                os.read(self._wake_read, 4096)
            if self._clear_at is not None and self._clear_at <= time.monotonic():
                self._clear_at = None
                self._composer.clear()
            if self._work.exit_code is None:
                self._work.poll(time.monotonic())
            self._screen.show(self._view())
        return self._work.exit_code

    def _timeout(self) -> float | None:
        now = time.monotonic()
        waits = []
        if self._decoder.wait_s:
            waits.append(self._read_at + self._decoder.wait_s - now)
        if self._clear_at is not None:
            waits.append(self._clear_at - now)
        if self._work.deadline is not None:
            waits.append(self._work.deadline - now)
        if self._work.busy:
            waits.append(1 - (now - self._work.started) % 1)
        return max(0.0, min(waits)) if waits else None

    def _wake(self) -> None:
        try:
            os.write(self._wake_write, b"x")
        except BlockingIOError:
            return  # full: the reader will wake up anyway

    def _handle(self, events: list[Event]) -> None:
        for event in events:
            if self._work.exit_code is not None:
                return
            if event.kind == "text":
                self._composer.insert(event.value)
            elif event.kind == "paste":
                self._composer.paste(event.value)
                if "late_enter" in self._options.misbehave:
                    self._be_late()
            else:
                self._key(event.value)

    def _key(self, name: str) -> None:
        if name == "enter":
            self._enter()
        elif name == "newline":
            self._composer.insert("\n")
        elif name == "backspace":
            self._composer.backspace()
        elif name == "c-e":
            self._composer.at_front = False
        elif name == "c-u" and not self._composer.at_front:
            self._composer.clear()
        elif name == "escape":
            self._escape()
        elif name == "c-c":
            self._control_c()
        elif name == "c-d" and not self._composer:
            self._work.exit_code = 0

    def _enter(self) -> None:
        if "swallow_enter" in self._options.misbehave and self._swallowed():
            return
        text = self._composer.text()
        if text.strip() and self._work.submit(text):
            if "late_clear" in self._options.misbehave:
                # It works on a text that still stands there; an Enter would give it once more.
                self._clear_at = time.monotonic() + self._options.number("late_clear", 1.0)
            elif "keeps_paste" not in self._options.misbehave:
                self._composer.clear()
            else:
                self._composer.at_front = self._options.misbehave["keeps_paste"] == "front"

    def _be_late(self) -> None:
        """Show the paste, then read nothing for a while, as on a busy machine.

        Enters that are then read together are all taken for the text that was there before them
        (measured: Claude Code 2.1.197 gives it to the model as often).
        """
        self._screen.show(self._view())
        time.sleep(self._options.number("late_enter", 1.5))
        late = os.read(0, READ_BYTES) if select.select([0], [], [], 0)[0] else b""
        text = self._composer.text()
        for _ in range(late.count(b"\r")):
            self._work.submit(text)
        if late:
            self._composer.clear()

    def _escape(self) -> None:
        given_back = self._work.interrupt()
        if given_back and not self._composer:
            self._composer.insert(given_back)

    def _swallowed(self) -> bool:
        if not self._options.misbehave["swallow_enter"]:
            return time.monotonic() - self._began < SWALLOW_S
        self._swallow -= 1
        return self._swallow >= 0

    def _control_c(self) -> None:
        now = time.monotonic()
        if now - self._interrupted_at < TWICE_S:
            self._work.exit_code = 0
            return
        self._interrupted_at = now
        self._composer.clear()
        self._work.interrupt()

    def _say(self, text: str) -> None:
        self._screen.say(text, self._view())

    def _view(self) -> View:
        work = self._work
        busy_s = int(time.monotonic() - work.started) if work.busy else -1
        hint = ""
        if not self._composer:
            if work.queue:
                hint = f"{len(work.queue)} queued"
            elif self._options.ghost and not work.busy:
                hint = _GHOST
        view = View(self._composer.shown(), queue=tuple(work.queue), busy_s=busy_s, hint=hint)
        if time.monotonic() - self._interrupted_at < TWICE_S:
            view.note = "press ctrl-c again to exit"
        return view


def leave(status: int) -> None:
    """End the process now: a thread that is still sending must not hold it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
