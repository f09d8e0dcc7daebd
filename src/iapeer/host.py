"""The composition root: the only place that knows everybody.

`run_daemon` is the daemon: it opens in one order and closes in the reverse one. The `offline_*`
functions do with files and ledger what an operator may do while no daemon runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import __version__
from .core import env
from .core.clock import SystemClock
from .core.errors import IapeerError, PeerLive
from .core.identity import Identity
from .core.profile import RegistryRecord
from .core.settings import Settings
from .daemon.server import DaemonServer
from .daemon.services import Services
from .lifecycle import rules
from .registry.admin import RemoveRules
from .registry.admin import remove as remove_peer
from .registry.index import Registry
from .registry.profiles import reindex_peer
from .registry.rename import RenameRules, recover_rename
from .registry.rename import rename as rename_peer
from .routing.admission import Admission
from .routing.fleet import FleetService
from .routing.inboxes import Inboxes
from .routing.lanes import Lanes
from .routing.notices import Notices
from .routing.router import Guarded, Router
from .routing.services import LaneServices
from .routing.tokens import HookEvidence, SessionTokens
from .routing.waits import Waits
from .runtimes.catalog import Catalog
from .sessions import spool
from .sessions.doors.inbox import InboxDoor
from .sessions.doors.paste import PaneDoor, PasteDoor
from .sessions.handoff import sweep_handoffs
from .sessions.launch import Launcher
from .sessions.notify import make_notifier
from .sessions.plan import Surroundings
from .sessions.process import DeathWatch, is_alive
from .sessions.tmux import require_tmux
from .storage.atomic import ensure_private_dir
from .storage.ledger import marks, messages
from .storage.ledger import sessions as rows
from .storage.ledger.offline import offline, offline_read
from .storage.ledger.store import Ledger
from .storage.locks import DaemonLock
from .storage.logs import LogFile, lifecycle_record
from .storage.paths import Paths


@dataclass
class Daemon:
    """A running daemon, for whoever started it."""

    server: DaemonServer
    lanes: Lanes


def run_daemon(settings: Settings, *, ready: Callable[[str], None]) -> int:
    """Run in the foreground until SIGTERM or SIGINT; returns the exit status.

    `ready` gets the READY line. Raises IapeerError when it can't start.
    """
    level = logging.INFO if settings.daemon_log else logging.WARNING
    logging.basicConfig(level=level, format="[iapeer] %(message)s")
    return asyncio.run(_until_signal(settings, ready))


async def _until_signal(settings: Settings, ready: Callable[[str], None]) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running_daemon(settings, os.environ) as daemon:
        ready(f"[iapeer] daemon READY tcp={daemon.server.url} sock={settings.daemon_socket}")
        await stop.wait()
    return 0


@asynccontextmanager
async def running_daemon(settings: Settings, environ: Mapping[str, str]) -> AsyncIterator[Daemon]:
    """Open everything, serve, and close everything in the reverse order.

    Raises IapeerError; then nothing is left open.
    """
    async with AsyncExitStack() as stack:
        tmux = await require_tmux(settings.tmux)
        paths = Paths(settings.root)
        for folder in (*paths.private_dirs(), settings.sock_dir):
            ensure_private_dir(folder)
        lock = DaemonLock(paths.daemon_lock)
        lock.acquire()
        stack.callback(lock.release)
        ledger = Ledger.open(paths.ledger, settings.busy_timeout_s)
        stack.callback(ledger.close)
        registry = _registry(paths, environ)
        with contextlib.suppress(IapeerError):
            # A registry that can't be written is reported by `status`; it must not stop mail.
            _recover(paths, registry)
        sweep_handoffs(paths.run)
        spool.sweep(paths.run, spool.PASTE_STEM)

        clock, waits = SystemClock(), Waits()
        lifecycle_log = LogFile(paths.lifecycle_log, settings.log_max_bytes, settings.log_keep)
        exits_log = LogFile(paths.exits_log, settings.log_max_bytes, settings.log_keep)

        def log(ev: str, **fields: object) -> None:
            lifecycle_log.append(lifecycle_record(clock.now(), ev, **fields))

        def exits(fields: Mapping[str, object]) -> None:
            values = dict(fields)
            exits_log.append(lifecycle_record(clock.now(), str(values.pop("ev")), **values))

        notices = Notices(ledger, registry, clock, settings, log)
        stack.push_async_callback(notices.close)
        deaths, notifier = DeathWatch(), make_notifier()
        stack.callback(deaths.close)
        stack.callback(notifier.close)
        catalog = Catalog.load(settings.runtimes_dir)
        launcher = Launcher(
            Surroundings(
                settings=settings,
                paths=paths,
                ledger=ledger,
                clock=clock,
                environ=environ,
                tmux=tmux,
                mcp_url=lambda: server.url,
                boots=asyncio.Semaphore(settings.boot_limit),
            )
        )
        services = LaneServices(
            settings=settings,
            clock=clock,
            ledger=ledger,
            registry=registry,
            catalog=catalog,
            launcher=launcher,
            doors={
                "paste": PasteDoor(settings),
                "pane": PaneDoor(settings),
                "inbox": InboxDoor(),
            },
            deaths=deaths,
            notifier=notifier,
            waits=waits,
            decide=rules.bind(settings),
            log=log,
            exits=exits,
            tell_sender=notices.failed,
        )
        lanes = Lanes(services)
        notices.deliver = lanes.work
        delivery_log = LogFile(paths.delivery_log, settings.log_max_bytes, settings.log_keep)
        guarded = Guarded(
            settings=settings,
            clock=clock,
            ledger=ledger,
            admission=Admission(settings, registry, catalog, environ),
        )
        server = DaemonServer(
            settings,
            Services(
                postman=Router(guarded, lanes, waits, delivery_log),
                fleet=FleetService(lanes, services, paths),
                evidence=HookEvidence(lanes),
                inbox=Inboxes(lanes, services),
                tokens=SessionTokens(ledger, registry),
                version=__version__,
            ),
        )
        await lanes.load()
        stack.push_async_callback(lanes.close)
        await server.start()
        stack.push_async_callback(server.stop)
        lanes.start()
        yield Daemon(server, lanes)


def offline_remove(settings: Settings, name: str, *, force: bool) -> dict[str, Any]:
    """Remove a peer while no daemon runs. Raises PeerLive when its session outlived the daemon."""
    paths = Paths(settings.root)
    failed: list[str] = []

    def purge(uid: str, gone: RegistryRecord) -> None:
        if not paths.ledger.exists():
            return
        clock = SystemClock()
        with offline(paths.ledger, settings.busy_timeout_s) as conn:
            reason = f"peer {gone.personality} was removed"
            failed.extend(row.id for row in messages.fail_for_uid(conn, uid, reason, clock.now()))
            marks.drop_uid(conn, uid, clock.now())

    def is_live(identity: Identity) -> bool:
        if _outlived(paths, settings, identity):
            raise PeerLive(
                f"{identity.address} runs, and no daemon does to end it",
                hint="start the daemon, then remove it",
            )
        return False

    registry = _registry(paths, os.environ)
    report = remove_peer(paths, registry, name, RemoveRules(is_live, purge, force=force))
    return {
        "personality": name,
        "action": report.action,
        "cwd": report.cwd,
        "purged": list(report.purged),
        "failed_messages": failed,
    }


def offline_rename(settings: Settings, old: str, new: str) -> dict[str, Any]:
    """Rename a peer while no daemon runs. Raises PeerLive when its session outlived the daemon."""
    paths = Paths(settings.root)
    rules_ = RenameRules(
        is_live=lambda identity: _outlived(paths, settings, identity),
        rename_state=lambda uid, _old, name: _retarget(paths, settings, uid, name),
    )
    report = rename_peer(paths, _registry(paths, os.environ), old, new, rules_)
    return {"old": report.old, "new": report.new, "cwd": report.cwd, "action": report.action}


def _registry(paths: Paths, environ: Mapping[str, str]) -> Registry:
    return Registry(paths, sandbox=environ.get(env.TEST_SANDBOX) == "1")


def _recover(paths: Paths, registry: Registry) -> None:
    """Finish or undo a rename that was cut short, and give a uid to peers of an older version."""

    def rename_state(uid: str, _old: str, new: str) -> None:
        with offline(paths.ledger) as conn:
            messages.retarget(conn, uid, new)

    recover_rename(paths, registry, rename_state)
    for record in registry.snapshot():
        if not record.uid and Path(record.cwd).is_dir():
            reindex_peer(registry, Path(record.cwd))


def _retarget(paths: Paths, settings: Settings, uid: str, name: str) -> None:
    if paths.ledger.exists():
        with offline(paths.ledger, settings.busy_timeout_s) as conn:
            messages.retarget(conn, uid, name)


def _outlived(paths: Paths, settings: Settings, identity: Identity) -> bool:
    """Whether a session of this identity still runs, by the ledger and the process table."""
    if not paths.ledger.exists():
        return False
    with offline_read(paths.ledger, settings.busy_timeout_s) as conn:
        live = rows.live_sessions(conn)
    return any(
        (row.runtime, row.personality) == (identity.runtime, identity.personality)
        and row.server_pid is not None
        and row.server_start is not None
        and is_alive(row.server_pid, int(row.server_start))
        for row in live
    )
