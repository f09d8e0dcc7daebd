"""What an operator asks of the daemon: who is there, stop, start, wake, remove, rename."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterable
from sqlite3 import Connection
from typing import TYPE_CHECKING, Any

from iapeer import __version__
from iapeer.core.errors import (
    InvalidInput,
    LaunchFailed,
    PeerLive,
    RuntimeUnknown,
    StorageError,
)
from iapeer.core.identity import RESERVED_NAMES, Identity, socket_name
from iapeer.core.profile import RegistryRecord
from iapeer.registry.admin import RemoveRules, identities
from iapeer.registry.admin import remove as remove_peer
from iapeer.registry.memory.care import Care, Cared
from iapeer.registry.rename import RenameRules
from iapeer.registry.rename import rename as rename_peer
from iapeer.storage.ledger import marks, messages, queries, sessions
from iapeer.storage.ledger.rows import MessageRow
from iapeer.storage.paths import Paths

from .lanes.lane import Lane
from .lanes.letters import Verb
from .lanes.pool import Lanes
from .lanes.presence import Phase
from .ports import AttachPoint, PeerView
from .waits import Key

if TYPE_CHECKING:
    from .lanes.services import LaneServices

ORDER_S = 15.0
"""Longest wait for a lane to obey; a step takes 2 s, ending a session a few more."""


class FleetService:
    """Operator verbs over all lanes; see `ports.Fleet`."""

    def __init__(self, lanes: Lanes, services: LaneServices, paths: Paths) -> None:
        self._lanes = lanes
        self._s = services
        self._paths = paths

    async def peers(self) -> list[PeerView]:
        """Return every registered peer, sorted by name."""
        waiting, _ = await self._waiting()
        records = self._s.registry.snapshot(allow_stale=True).records
        last = await self._last_used(records)
        return [
            PeerView(
                personality=record.personality,
                default_runtime=record.default_runtime,
                intelligence=record.intelligence,
                description=record.description,
                cwd=record.cwd,
                runtimes=record.runtimes,
                statuses={rt: self._status(record, rt) for rt in record.runtimes},
                undelivered=sum(waiting.get((record.uid, rt), 0) for rt in record.runtimes),
                last_active_runtime=last.get(record.uid),
            )
            for record in records
        ]

    async def stop(self, personality: str, runtime: str | None) -> dict[str, str]:
        """Stop sessions and refuse further messages; returns runtime -> action."""
        return await self._order_all(personality, runtime, Verb.STOP)

    async def start(self, personality: str, runtime: str | None) -> dict[str, str]:
        """Allow messages again and forget faults; returns runtime -> action."""
        return await self._order_all(personality, runtime, Verb.START)

    async def interrupt(self, personality: str, runtime: str | None) -> str:
        """Stop the running turn of a live session; returns its identity.

        Raises ControlRefused.
        """
        record = self._record(personality)
        lane = self._lane(record, self._runtime(record, runtime))
        await asyncio.wait_for(lane.order(Verb.INTERRUPT), ORDER_S)
        return lane.identity.address

    async def compact(self, personality: str, runtime: str | None) -> tuple[str, bool]:
        """Shorten the context of a session and wait for the runtime's own word that it is done.

        A parked one is gone on with first; returns its identity and whether that was so. Raises
        ControlRefused, LaunchFailed.
        """
        record = self._record(personality)
        lane = self._lane(record, self._runtime(record, runtime))
        was_live = lane.phase == Phase.LIVE
        settings = self._s.settings
        limit = settings.compact_done_timeout_ms / 1000 + settings.boot_deadline_s + ORDER_S
        await asyncio.wait_for(lane.order(Verb.COMPACT), limit)
        return lane.identity.address, not was_live

    async def wake(self, personality: str, runtime: str | None) -> AttachPoint:
        """Bring a session up for a human; see `ports.Fleet`."""
        record = self._record(personality)
        name = self._runtime(record, runtime or await self._in_use(record))
        return await self._bring_up(self._lane(record, name), Verb.WAKE)

    async def launch(self, personality: str, runtime: str | None) -> AttachPoint:
        """Start a fresh session unless one lives; see `ports.Fleet`."""
        record = self._record(personality)
        return await self._bring_up(self._lane(record, self._runtime(record, runtime)), Verb.LAUNCH)

    async def new(self, personality: str, runtime: str | None) -> str:
        """End what runs and start a fresh session; returns its identity when it is ready."""
        record = self._record(personality)
        lane = self._lane(record, self._runtime(record, runtime))
        return (await self._bring_up(lane, Verb.NEW)).identity

    async def refresh(self, personality: str, runtime: str | None) -> dict[str, str]:
        """Make the next session a fresh one, of agent runtimes; returns runtime -> action."""
        record = self._record(personality)
        names = record.runtimes if runtime is None else (self._runtime(record, runtime),)
        done = {}
        for name in names:
            is_agent = self._s.catalog.get(name).kind == "tui"
            if is_agent:
                await self._lane(record, name).waking.conversation.refresh()
            done[name] = "refresh-armed" if is_agent else "skipped-non-agentic"
        return done

    async def _bring_up(self, lane: Lane, verb: Verb) -> AttachPoint:
        limit = self._s.settings.boot_deadline_s + ORDER_S
        try:
            what = await asyncio.wait_for(lane.order(verb), limit)
        except TimeoutError:
            raise LaunchFailed(
                f"{lane.identity.address} did not come up within {limit:g} s", code="not_ready"
            ) from None
        if what == "woke" and verb is not Verb.NEW and lane.session is not None:
            self._s.launcher.onlookers.woken(lane.session.id)
        return AttachPoint(
            identity=lane.identity.address,
            socket=str(self._s.settings.sock_dir / socket_name(lane.identity)),
            session=lane.identity.address,
            woke=what == "woke",
        )

    async def _in_use(self, record: RegistryRecord) -> str | None:
        """Return the runtime a person means who names none: what lives, else what lived last."""
        live = [rt for rt in record.runtimes if self._lanes.phase((record.uid, rt)) == Phase.LIVE]
        if live:
            return record.default_runtime if record.default_runtime in live else live[0]
        last = await self._s.ledger.read(lambda c: sessions.last_used(c, record.uid))
        return last if last in record.runtimes else None

    async def remove(self, personality: str, *, force: bool) -> dict[str, Any]:
        """End, purge and unregister. Raises PeerLive without `force` while a session runs."""
        record = self._s.registry.snapshot().get(personality)
        if record is not None:
            await self._lay_down(record, force=force)
        failed: list[MessageRow] = []

        def purge(uid: str, gone: RegistryRecord) -> None:
            failed.extend(self._in_ledger(loop, lambda c: self._purge(c, uid, gone)))

        left: list[Cared] = []
        care, cut = Care(self._paths, os.environ, self._s.log), threading.Event()
        loop = asyncio.get_running_loop()
        rules = RemoveRules(
            is_live=self._is_live,
            purge_state=purge,
            before_purge=lambda gone: left.append(care.leaving(gone, cut)),
            force=force,
        )
        try:
            report = await asyncio.to_thread(
                remove_peer, self._paths, self._s.registry, personality, rules
            )
        finally:
            # A daemon that goes down does not wait for a memory provider.
            cut.set()
        if record is not None:
            # What came in between the end of its sessions and the end of its record.
            await self._end_all(record)
            failed += await self._s.ledger.write(lambda c: self._purge(c, record.uid, record))
            await self._lanes.drop(record.uid)
        for row in failed:
            self._s.waits.changed(row.id)
            self._s.notices.failed(row)
        self._s.log("remove", personality=personality, action=report.action)
        return {
            "personality": personality,
            "action": report.action,
            "cwd": report.cwd,
            "purged": list(report.purged),
            "failed_messages": [row.id for row in failed],
            "memory": [line for cared in left for line in cared.lines],
            "warnings": [warning for cared in left for warning in cared.warnings],
        }

    async def rename(self, old: str, new: str) -> dict[str, Any]:
        """Rename a sleeping peer everywhere. Raises PeerLive, PeerExists, PeerNotFound."""
        record = self._record(old)
        await self._lay_down(record, force=False)
        loop = asyncio.get_running_loop()

        def rename_state(uid: str, _old: str, name: str) -> None:
            self._in_ledger(loop, lambda c: messages.retarget(c, uid, name))

        rules = RenameRules(is_live=self._is_live, rename_state=rename_state)
        await self._lanes.drop(record.uid)
        try:
            report = await asyncio.to_thread(
                rename_peer, self._paths, self._s.registry, old, new, rules
            )
        finally:
            await self._go_on(record)
        self._s.log("rename", personality=old, to=report.new)
        return {"old": report.old, "new": report.new, "cwd": report.cwd, "action": report.action}

    async def status(self) -> dict[str, Any]:
        """Return what `status` shows."""
        snapshot = self._s.registry.snapshot(allow_stale=True)
        waiting, unhealthy = await self._waiting()
        unhealthy = unhealthy or self._s.ledger.unhealthy
        problems = [p.message for p in snapshot.problems]
        problems += [p.message for p in self._s.catalog.problems]
        problems += self._s.budget.problems()
        problems += [await self._trouble(lane) for lane in self._lanes.broken()]
        if unhealthy is not None:
            problems.append(str(unhealthy))
        return {
            "version": __version__,
            "pid": os.getpid(),
            "peers": len(snapshot.records),
            "live": len(self._s.by_session),
            "undelivered": sum(waiting.values()),
            "problems": problems,
        }

    async def _trouble(self, lane: Lane) -> str:
        """Return one line on a peer that does not come up: what its newest fault was."""
        try:
            why = await lane.journal.newest_fault()
        except StorageError:
            why = ""
        return f"{lane.identity.address} does not come up: {why or 'its sessions ended'}"

    async def _waiting(self) -> tuple[dict[Key, int], StorageError | None]:
        """Count what waits per identity; a ledger that can't be read costs the counts only."""
        try:
            found = await self._s.ledger.read(queries.undelivered_identities)
        except StorageError as error:
            return {}, error
        return {(item.uid, item.runtime): item.waiting for item in found}, None

    async def _last_used(self, records: Iterable[RegistryRecord]) -> dict[str, str]:
        """Return by uid on which of its runtimes a peer was last; nothing while nobody can say."""

        def look(conn: Connection) -> dict[str, str]:
            found = {record.uid: sessions.last_used(conn, record.uid) for record in records}
            return {r.uid: found[r.uid] for r in records if found[r.uid] in r.runtimes}

        try:
            return await self._s.ledger.read(look)
        except StorageError:
            return {}

    def _status(self, record: RegistryRecord, runtime: str) -> str:
        key = (record.uid, runtime)
        phase = self._lanes.phase(key)
        if phase == Phase.LIVE:
            return "live"
        if self._lanes.is_stopped(key):
            return "stopped"
        if phase == Phase.BOOTING:
            return "booting"
        return "broken" if self._lanes.is_broken(key) else "asleep"

    async def _order_all(self, personality: str, runtime: str | None, verb: Verb) -> dict[str, str]:
        record = self._record(personality)
        names = record.runtimes if runtime is None else (self._runtime(record, runtime),)
        orders = {name: self._lane(record, name).order(verb) for name in names}
        return {name: await asyncio.wait_for(order, ORDER_S) for name, order in orders.items()}

    async def _lay_down(self, record: RegistryRecord, *, force: bool) -> None:
        """End what runs of a peer, when it may; then nothing of it is live."""
        live = [i for i in identities(record) if self._is_live(i)]
        if live and not force:
            raise PeerLive(
                f'"{record.personality}" is live ({", ".join(str(i) for i in live)})',
                hint=f"iapeer stop {record.personality}",
            )
        await self._end_all(record)

    async def _end_all(self, record: RegistryRecord) -> None:
        for identity in identities(record):
            lane = self._lane(record, identity.runtime)
            await asyncio.wait_for(lane.order(Verb.END), ORDER_S)

    async def _go_on(self, before: RegistryRecord) -> None:
        """After a rename, done or not: what waits for the peer goes to the name it has now."""
        await self._end_all(before)
        await self._lanes.drop(before.uid)
        for found in self._s.registry.snapshot(allow_stale=True):
            if found.uid == before.uid:
                await self._retarget(found)
                for identity in identities(found):
                    self._lanes.work(found.uid, identity)

    async def _retarget(self, record: RegistryRecord) -> None:
        name = record.personality
        await self._s.ledger.write(lambda c: messages.retarget(c, record.uid, name))

    def _is_live(self, identity: Identity) -> bool:
        record = self._s.registry.snapshot(allow_stale=True).get(identity.personality)
        if record is None:
            return False
        phase = self._lanes.phase((record.uid, identity.runtime))
        return phase in (Phase.LIVE, Phase.BOOTING, Phase.ADOPTING)

    def _purge(self, conn: Connection, uid: str, gone: RegistryRecord) -> list[MessageRow]:
        now = self._s.clock.now()
        reason = f"peer {gone.personality} was removed"
        failed = messages.fail_for_uid(conn, uid, reason, now)
        marks.drop_uid(conn, uid, now)
        return failed

    def _in_ledger(self, loop: asyncio.AbstractEventLoop, fn: Callable[[Connection], Any]) -> Any:
        """Write from a worker thread of a registry function."""
        future = asyncio.run_coroutine_threadsafe(self._s.ledger.write(fn), loop)
        return future.result(timeout=ORDER_S)

    def _record(self, personality: str) -> RegistryRecord:
        if personality in RESERVED_NAMES:
            raise InvalidInput(f"{personality} is the core itself")
        return self._s.registry.snapshot(allow_stale=True).require(personality)

    def _runtime(self, record: RegistryRecord, runtime: str | None) -> str:
        if runtime is None:
            return record.default_runtime
        if runtime not in record.runtimes:
            raise RuntimeUnknown(
                f'runtime "{runtime}" is not declared for "{record.personality}"',
                hint=f"declared: {', '.join(record.runtimes)}",
            )
        return runtime

    def _lane(self, record: RegistryRecord, runtime: str) -> Lane:
        return self._lanes.lane(record.uid, Identity(runtime, record.personality))
