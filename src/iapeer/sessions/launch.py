"""Bring up exactly one session to READY or one named failure, adopt one that lives, end one.

Nothing here decides whether a session should run: the lane does. Every way out of `launch` that
is no READY session leaves no tmux server, no process, no hand-over file and an ended ledger row.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Mapping
from pathlib import Path
from sqlite3 import Connection
from typing import Any, TypeVar

import msgspec

from iapeer.core import env
from iapeer.core.errors import IapeerError, LaunchFailed, SessionGone, StorageError, TmuxError
from iapeer.core.identity import Identity
from iapeer.core.ids import new_token, token_digest
from iapeer.runtimes.spec import RuntimeSpec
from iapeer.storage.faults import fault
from iapeer.storage.ledger import sessions as rows
from iapeer.storage.ledger.rows import Birth, NewSession, SessionRow

from .canary import Canaries, CanaryState, Watched, exit_hooks
from .ends import Ends, Remains, remains_of, remains_of_row
from .environment import server_env
from .forensics.coroner import boot_id
from .handoff import stub_argv, write_handoff
from .model import LaunchRequest, TmuxSession, marks_of
from .onlookers import Onlookers
from .plan import Plan, Surroundings, config_home, is_isolated, make_plan
from .process import end_program, is_alive, start_time
from .ready import AUX, until_ready
from .recorded import until_recorded
from .tmux.server import TmuxServer

_Started = TypeVar("_Started")


class _Secrets(msgspec.Struct, frozen=True):
    """What a pane must get and nobody else: the token, and the files that it goes through."""

    token: str
    handoffs: list[Path] = msgspec.field(default_factory=list)


class Launcher:
    """Makes, adopts and ends tmux sessions."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        enabled = around.settings.canary
        self._canaries = Canaries(around.paths, around.tmux, enabled=enabled)
        self._ends = Ends(self._canaries, around.ledger, around.clock, stopped=around.stopped)
        self._unarmed: set[str] = set()
        self.onlookers = Onlookers(around.clock, around.log)
        """People who look at its sessions."""

    @contextlib.asynccontextmanager
    async def permit(self) -> AsyncIterator[None]:
        """Wait for the host's permission to boot; give it back when the block ends."""
        async with self._around.boots:
            yield

    @property
    def boot_slot_free(self) -> bool:
        """Whether a boot would begin at once."""
        return not self._around.boots.locked()

    async def launch(self, request: LaunchRequest, spec: RuntimeSpec) -> TmuxSession:
        """Return a session whose input surface is ready.

        Raises LaunchFailed (`cwd_gone`, `binary_missing`, `exited`, `not_ready`, `tmux`).
        """
        plan = await asyncio.to_thread(make_plan, request, spec, self._around)
        around = self._around
        secrets = _Secrets(new_token())
        row = NewSession(
            id=plan.session_id,
            uid=request.uid,
            runtime=request.identity.runtime,
            personality=request.identity.personality,
            token_sha256=token_digest(secrets.token),
            cwd=str(request.cwd),
            socket=str(plan.socket),
            started_at=around.clock.now(),
            mode=plan.mode,
            native_id=plan.native_id,
            transcript=plan.transcript,
            read_offset=plan.offset,
            endpoint=plan.endpoint,
            heard=plan.mode == "resume",
            boot_id=boot_id(),
        )

        def open_row(conn: Connection) -> None:
            rows.open_session(conn, row)

        try:
            hooks = await self._hooks(request, plan)
            server = self._server(plan.socket, hooks)
        except TmuxError as error:
            raise _as_launch_failure(request, error) from error
        try:
            await _whole(around.ledger.write(open_row))
        except asyncio.CancelledError:
            with contextlib.suppress(StorageError):
                await asyncio.shield(self._ends.write(plan.session_id, "boot:cancelled", None))
            raise
        fault("launch.opened")
        try:
            return await self._bring_up(request, spec, plan, server, secrets)
        except BaseException as error:
            cause = error.code if isinstance(error, IapeerError) else "cancelled"
            await asyncio.shield(self._undo(server, plan, cause))
            if isinstance(error, TmuxError):
                raise _as_launch_failure(request, error) from error
            raise
        finally:
            # Not before: a stub that does not find its file any more looks like a crash.
            for handoff in secrets.handoffs:
                handoff.unlink(missing_ok=True)

    async def adopt(self, row: SessionRow, spec: RuntimeSpec) -> TmuxSession | None:
        """Return the live session a ledger row tells of, None when it is provably gone.

        A session whose boot nobody saw finish counts as gone: nothing was handed to it. Raises
        TmuxError when it can't be known; unknown is not dead.
        """
        server = self._server(Path(row.socket))
        identity = Identity(runtime=row.runtime, personality=row.personality)
        known, pane = _pair(row.server_pid, row.server_start), _pair(row.pane_pid, row.pane_start)
        server.adopt(identity.address, known)
        if row.ready_at is None or known is None or pane is None:
            return None
        try:
            facts = await server.facts()
        except SessionGone:
            facts = None
        if (
            facts is None
            or facts.pane_dead
            or (facts.server_pid, facts.server_start) != known
            or not is_alive(*pane)
        ):
            return None
        aux = await server.program_of(AUX) if spec.launch.server_argv else None
        if spec.launch.server_argv and aux is None:
            return None
        await server.detach_strangers()
        session = TmuxSession(
            id=row.id,
            uid=row.uid,
            identity=identity,
            spec=spec,
            cwd=Path(row.cwd),
            tmux=server,
            server=known,
            pane=pane,
            marks=marks_of(spec, isolated=is_isolated(spec, self._around.settings)),
            isolated=is_isolated(spec, self._around.settings),
            native_id=row.native_id,
            transcript=row.transcript,
            endpoint=row.endpoint,
            home=config_home(identity, Path(row.cwd), spec, self._around),
            aux=aux,
            mode=row.mode,
            started_at=row.started_at,
        )
        await self.guard(session)
        self.onlookers.watch(session, adopted=True)
        return session

    async def guard(self, session: TmuxSession) -> None:
        """See to it that the death of this session's server will be recorded.

        Done at every adoption and audit; a loss is logged once.
        """
        watched = remains_of(session).watched
        state = await self._canaries.ensure(watched)
        is_news = state is CanaryState.SPAWNED or (
            state is CanaryState.FAILED and session.id not in self._unarmed
        )
        (self._unarmed.add if state is CanaryState.FAILED else self._unarmed.discard)(session.id)
        if is_news:
            self._around.log(
                "supervise",
                identity=watched.identity,
                action="canary",
                state=state,
                origin="retrofit",
                session=session.id,
            )

    async def close(self) -> None:
        """Leave sessions and their recorders to themselves; they live on."""
        await self._canaries.close()

    async def end(self, session: TmuxSession, cause: str) -> None:
        """End one session and everything that runs in it; write its end down. Idempotent."""
        await until_recorded(session)
        await session.release()
        await self.onlookers.ended(session.id)
        scene = await self._ends.look(remains_of(session))
        await session.tmux.kill()
        for program in session.processes[1:]:
            await end_program(*program)
        _remove_endpoint(session.endpoint)
        self._unarmed.discard(session.id)
        fault("leave.killed")
        await self._ends.write(session.id, cause, scene)

    async def clear(self, row: SessionRow, cause: str) -> None:
        """Remove what is left of a session that is not there any more, and end its row."""
        server = self._server(Path(row.socket))
        born = _pair(row.server_pid, row.server_start)
        identity = Identity(runtime=row.runtime, personality=row.personality)
        server.adopt(identity.address, born)
        await self.onlookers.ended_unwatched(row.id, identity, server, born)
        scene = await self._ends.look(remains_of_row(row, server, born))
        aux = None
        with contextlib.suppress(TmuxError):
            aux = await server.program_of(AUX) if row.endpoint else None
        await server.kill()
        for program in (_pair(row.pane_pid, row.pane_start), aux):
            if program is not None:
                await end_program(*program)
        _remove_endpoint(row.endpoint)
        await self._ends.write(row.id, cause, scene)

    async def _bring_up(
        self,
        request: LaunchRequest,
        spec: RuntimeSpec,
        plan: Plan,
        server: TmuxServer,
        secrets: _Secrets,
    ) -> TmuxSession:
        around = self._around
        own_server, started_at = bool(plan.server_argv), around.clock.now()
        environ = {**plan.env, env.SESSION_TOKEN: secrets.token}
        handoffs = secrets.handoffs
        handoffs.append(
            write_handoff(
                around.paths.run,
                plan.argv,
                environ,
                request.cwd,
                wait_for=Path(plan.endpoint) if own_server else None,
            )
        )
        birth = await _whole(
            server.start(
                request.identity.address,
                stub_argv(handoffs[0]),
                cwd=request.cwd,
                env=server_env(around.environ),
            )
        )
        # A program that ended at once has no start time any more; 0 is nobody's.
        pane = (birth.pane_pid, birth.pane_start or 0)
        born = Birth(
            server_pid=birth.server_pid,
            server_start=birth.server_start,
            pane_id=birth.pane_id,
            pane_pid=pane[0],
            pane_start=pane[1],
        )
        await around.ledger.write(lambda c: rows.set_birth(c, plan.session_id, born))
        fault("launch.born")
        await self._arm(request, plan, server, (birth.server_pid, birth.server_start))
        aux = None
        if own_server:
            argv = write_handoff(around.paths.run, plan.server_argv, environ, request.cwd)
            handoffs.append(argv)
            await server.add(AUX, stub_argv(argv), cwd=request.cwd)
            # One that ended at once has no start time any more; 0 is nobody's.
            aux = await server.program_of(AUX) or (0, 0)
        session = TmuxSession(
            id=plan.session_id,
            uid=request.uid,
            identity=request.identity,
            spec=spec,
            cwd=request.cwd,
            tmux=server,
            server=(birth.server_pid, birth.server_start),
            pane=pane,
            marks=marks_of(spec, isolated=is_isolated(spec, self._around.settings)),
            isolated=is_isolated(spec, self._around.settings),
            native_id=plan.native_id,
            transcript=plan.transcript,
            endpoint=plan.endpoint,
            home=plan.home,
            aux=aux,
            mode=plan.mode,
            started_at=started_at,
            preface=request.preface if plan.mode == "fresh" else "",
        )
        self.onlookers.watch(session)
        try:
            limit_s = spec.launch.boot_deadline_s or around.settings.boot_deadline_s
            await until_ready(session, limit_s, self.connect)
        except BaseException:
            await session.release()
            raise
        now = around.clock.now()
        await around.ledger.write(lambda c: rows.mark_ready(c, plan.session_id, now))
        fault("launch.ready")
        return session

    async def connect(self, session: TmuxSession) -> None:
        """Begin to connect to the session's own server, where its runtime has one. Idempotent."""
        for door in session.spec.doors:
            make = self._around.channels.get(door)
            if make is not None and session.channel is None:
                session.channel = make(session, session.told)
                await session.channel.start()

    async def _undo(self, server: TmuxServer, plan: Plan, cause: str) -> None:
        """Leave nothing of a failed boot behind."""
        found = await self._around.ledger.read(lambda c: rows.get_session(c, plan.session_id))
        pane = _pair(found.pane_pid, found.pane_start) if found else None
        with contextlib.suppress(TmuxError):
            facts = await server.facts() if pane is None and server.session else None
            if facts is not None and not facts.pane_dead:
                pane = _pair(facts.pane_pid, start_time(facts.pane_pid))
        aux = None
        with contextlib.suppress(TmuxError):
            aux = await server.program_of(AUX) if plan.server_argv and server.session else None
        scene = None
        if found is not None and server.session:
            born = _pair(found.server_pid, found.server_start)
            watched = Watched(plan.session_id, server.session, plan.socket, born)
            scene = await self._ends.look(Remains(watched, server, found.started_at))
        await self.onlookers.ended(plan.session_id)
        await server.kill()
        for program in (pane, aux):
            if program is not None:
                await end_program(*program)
        _remove_endpoint(plan.endpoint)
        await self._ends.write(plan.session_id, f"boot:{cause}", scene)

    async def _hooks(self, request: LaunchRequest, plan: Plan) -> Mapping[str, str]:
        """Return what the server shall run by itself when its program ends."""
        with contextlib.suppress(OSError, IapeerError):
            # Without its script the hook does nothing, and the daemon writes what it knows.
            await asyncio.to_thread(self._canaries.prepare)
        return exit_hooks(self._around.paths, request.identity.address, plan.session_id)

    async def _arm(
        self, request: LaunchRequest, plan: Plan, server: TmuxServer, born: tuple[int, int]
    ) -> None:
        """Begin to record, from outside, what happens to a new server."""
        identity = request.identity.address
        state = await self._canaries.ensure(Watched(plan.session_id, identity, plan.socket, born))
        if state is not CanaryState.SKIPPED:
            self._around.log(
                "canary", identity=identity, state=state, origin="launch", session=plan.session_id
            )
        if self._around.settings.pane_logs:
            with contextlib.suppress(TmuxError):
                # The screen still shows what this log then lacks.
                await server.keep_output(self._around.paths.pane_log(identity))

    def _server(self, socket: Path, hooks: Mapping[str, str] | None = None) -> TmuxServer:
        run = self._around.paths.run
        return TmuxServer(socket, binary=self._around.tmux, runtime_dir=run, hooks=hooks)


def _as_launch_failure(request: LaunchRequest, error: TmuxError) -> LaunchFailed:
    address = request.identity.address
    return LaunchFailed(f"{address}: {error.message}", hint=error.hint, code="tmux")


async def _whole(start: Coroutine[Any, Any, _Started]) -> _Started:
    """Await a step that leaves something behind to its end even when cancelled.

    Cut short, the start of a tmux server leaves a socket, or a server nobody knows of, and a row
    of the ledger one that nobody ends. Bounded by itself (8 s; measured: 13-23 ms).
    """
    task = asyncio.ensure_future(start)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()
        raise


def _pair(pid: int | None, start: float | None) -> tuple[int, int] | None:
    return (pid, int(start)) if pid and start is not None else None


def _remove_endpoint(endpoint: str) -> None:
    """Unlink the socket of a runtime's own server that has ended."""
    if endpoint.startswith("/"):
        Path(endpoint).unlink(missing_ok=True)
