"""One recorder per living tmux server: ensure it, silence it, stand in for one that is missing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from enum import StrEnum
from pathlib import Path

import msgspec

from iapeer.core.errors import IapeerError
from iapeer.sessions import process
from iapeer.sessions.forensics.exits import ExitLine, lines_of
from iapeer.sessions.forensics.oom import Counter, counter_of
from iapeer.storage.logs import LogFile
from iapeer.storage.paths import Paths

from . import marks, script
from .marks import Mark, Process

ARM_S = 2.0
"""Longest wait for a new recorder to say that it watches (measured: 8 ms)."""
CLAIM_S = 1.0
"""Longest wait for the server's hook to begin; after it the daemon writes the record."""
_POLL_S = 0.003
_DISMISS_S = 0.5
"""A recorder leaves at once (measured: 2 ms); one that is stopped or hangs is killed then."""
_LOOKS, _LOOK_GAP_S = 4, 1.0
"""A recorder writes 2 s after the server's death; on a busy machine it takes its time."""
_REMEMBERED = 1000
"""So many ended sessions are known to stay unwatched."""
_ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C"}


class CanaryState(StrEnum):
    """What `ensure` found or did."""

    SPAWNED = "spawned"
    ALREADY = "already"
    SKIPPED = "skipped"
    """Nothing to watch: the server is gone, or recorders are turned off."""
    FAILED = "failed"


class Watched(msgspec.Struct, frozen=True):
    """One session's server; `server` is its (pid, start time)."""

    session_id: str
    identity: str
    socket: Path
    server: Process | None


class Canaries:
    """All recorders of one root. Keeps next to nothing: the pid files are the truth."""

    def __init__(self, paths: Paths, tmux: str, *, enabled: bool = True) -> None:
        self._paths = paths
        self._tmux = tmux
        self._enabled = enabled
        self._children: set[int] = set()
        self._counters: dict[str, Counter] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._silenced: dict[str, None] = {}
        self._looks: set[asyncio.Task[None]] = set()

    def prepare(self) -> None:
        """Put the script into its place. Raises StorageError, OSError."""
        script.install(self._paths, self._tmux)

    async def ensure(self, watched: Watched) -> CanaryState:
        """See to it that somebody records the end of this server. Never raises but a cancel."""
        if not self._enabled:
            return CanaryState.SKIPPED
        try:
            async with self._lock(watched):
                return await self._ensure(watched)
        except (OSError, IapeerError):
            return CanaryState.FAILED

    async def silence(self, watched: Watched) -> None:
        """Dismiss the recorder: what happens to the server from now on is wanted.

        When this returns it is gone, and no record will come of it. Without one it does nothing.
        Nobody is armed for this session again: an audit may be looking at it right now.
        """
        async with self._lock(watched):
            self._silenced[watched.session_id] = None
            await self._silence(watched)
        self._locks.pop(watched.session_id, None)
        while len(self._silenced) > _REMEMBERED:
            del self._silenced[next(iter(self._silenced))]

    async def _silence(self, watched: Watched) -> None:
        self._reap()
        self._counters.pop(watched.session_id, None)
        path = self._paths.canary_mark(watched.session_id)
        mark = marks.read_mark(path)
        if mark is not None:
            await self._dismiss(mark)
        elif self._enabled:
            await self._dismiss_orphans(watched)
        marks.forget(path)
        marks.forget(self._paths.canary_claim(watched.session_id))
        self._reap()

    async def told(self, watched: Watched, status: int | None, number: int | None) -> None:
        """Wait until the server's hook has begun to write how its program ended; else write it.

        Before this the server must not be ended: its hook would end with it.
        """
        claim = self._paths.canary_claim(watched.session_id)
        deadline = asyncio.get_running_loop().time() + CLAIM_S
        while not claim.exists():
            if asyncio.get_running_loop().time() > deadline:
                self._tell(watched, claim, status, number)
                return
            await asyncio.sleep(_POLL_S)

    async def stand_in(self, watched: Watched) -> None:
        """Have a server's death recorded that nobody else records; there is one record at most.

        A recorder that still seems to live may have been killed along with its server: that is
        looked at again when its grace is over. Never waits.
        """
        if not self._enabled or watched.server is None or not self._is_unrecorded(watched):
            return
        if self._has_recorder(watched):
            task = asyncio.create_task(self._look_again(watched))
            self._looks.add(task)
            task.add_done_callback(self._looks.discard)
        else:
            self._record_late(watched)

    async def close(self) -> None:
        """Leave the recorders to themselves."""
        for task in self._looks:
            task.cancel()
        if self._looks:
            await asyncio.wait(self._looks)

    def line_of(self, session_id: str) -> ExitLine | None:
        """Return what exits.log says of the end of a session, None when nothing."""
        found = [x for x in lines_of(self._paths.exits_log, session_id) if not x.own_server]
        return found[-1] if found else None

    def counter(self, session_id: str) -> Counter:
        """Return the counter of out-of-memory kills as it stood when the session was young."""
        found = self._counters.get(session_id)
        if found is None:
            mark = marks.read_mark(self._paths.canary_mark(session_id))
            found = Counter("", 0) if mark is None else Counter(mark.counter, mark.kills)
        return found

    async def _ensure(self, watched: Watched) -> CanaryState:
        self._reap()
        is_over = watched.session_id in self._silenced
        if is_over or watched.server is None or not process.is_alive(*watched.server):
            return CanaryState.SKIPPED
        path = self._paths.canary_mark(watched.session_id)
        mark = marks.read_mark(path)
        if mark is not None and mark.watches:
            self._counters.setdefault(watched.session_id, Counter(mark.counter, mark.kills))
            return CanaryState.ALREADY
        if mark is not None:
            await self._dismiss(mark)
        elif watched.session_id in self._counters:
            # There was a file and it is gone; its processes may not be.
            await self._dismiss_orphans(watched)
        marks.forget(path)
        self.prepare()
        counter = counter_of(watched.server[0])
        self._counters[watched.session_id] = counter
        return await self._arm(watched, path, counter)

    async def _arm(self, watched: Watched, path: Path, counter: Counter) -> CanaryState:
        child = self._spawn("watch", watched, counter)
        deadline = asyncio.get_running_loop().time() + ARM_S
        armed = False
        try:
            while asyncio.get_running_loop().time() < deadline:
                mark = marks.read_mark(path)
                armed = mark is not None and mark.watches
                if armed or self._reap(child):
                    break
                await asyncio.sleep(_POLL_S)
        finally:
            if not armed and child in self._children:
                os.kill(child, signal.SIGTERM)
        return CanaryState.SPAWNED if armed else CanaryState.FAILED

    async def _look_again(self, watched: Watched) -> None:
        for _ in range(_LOOKS):
            await asyncio.sleep(_LOOK_GAP_S)
            if not self._is_unrecorded(watched):
                return
            if not self._has_recorder(watched):
                self._record_late(watched)
                return

    def _is_unrecorded(self, watched: Watched) -> bool:
        return self.line_of(watched.session_id) is None

    def _has_recorder(self, watched: Watched) -> bool:
        self._reap()
        mark = marks.read_mark(self._paths.canary_mark(watched.session_id))
        return mark is not None and mark.recorder is not None

    def _record_late(self, watched: Watched) -> None:
        marks.forget(self._paths.canary_mark(watched.session_id))
        with contextlib.suppress(OSError, IapeerError):
            self._spawn("late", watched, self.counter(watched.session_id))

    def _spawn(self, mode: str, watched: Watched, counter: Counter) -> int:
        """Start the script detached: a session of its own, no descriptor or variable of ours."""
        server = watched.server or (0, 0)
        words = [
            script.channel(watched.identity),
            str(watched.socket),
            str(server[0]),
            str(server[1]),
            watched.identity,
            watched.session_id,
            counter.path,
            str(counter.kills),
        ]
        nothing = [
            (os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0)
            for fd in (0, 1, 2)
        ]  # fmt: skip
        child = os.posix_spawn(
            script.SHELL,
            script.argv(self._paths, mode, words),
            _ENV,
            file_actions=nothing,
            setsid=True,
            setsigmask=(),
            # A signal that is ignored at its start can't be trapped by a shell.
            setsigdef=(signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE),
        )
        self._children.add(child)
        return child

    def _tell(self, watched: Watched, claim: Path, status: int | None, number: int | None) -> None:
        """Write the record of a program's end in place of a hook that did not begin."""
        try:
            os.close(os.open(claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except OSError:
            # The hook has it after all, or the disk takes nothing.
            return
        line = ExitLine(
            ev="session-exit",
            identity=watched.identity,
            session=watched.session_id,
            status=status,
            signal=number,
        )
        LogFile(self._paths.exits_log, 1 << 62, 1).append(line.text())

    async def _dismiss(self, mark: Mark) -> None:
        for found in (mark.recorder, mark.client):
            if found is not None:
                with contextlib.suppress(IapeerError):
                    await process.terminate(*found, _DISMISS_S)

    async def _dismiss_orphans(self, watched: Watched) -> None:
        name = script.channel(watched.identity)
        found = await asyncio.to_thread(
            lambda: list(marks.orphans(self._paths.canary_script, watched.socket, name))
        )
        for one in found:
            with contextlib.suppress(IapeerError):
                await process.terminate(*one, _DISMISS_S)

    def _lock(self, watched: Watched) -> asyncio.Lock:
        return self._locks.setdefault(watched.session_id, asyncio.Lock())

    def _reap(self, wanted: int = 0) -> bool:
        """Collect recorders of ours that have ended; tell whether `wanted` has."""
        for child in tuple(self._children):
            try:
                done, _ = os.waitpid(child, os.WNOHANG)
            except ChildProcessError:
                done = child
            if done:
                self._children.discard(child)
        return wanted not in self._children
