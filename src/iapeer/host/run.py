"""The daemon: everybody is bound to everybody here, opened in one order, closed in the reverse."""

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

from iapeer import __version__
from iapeer.core.clock import SystemClock
from iapeer.core.errors import IapeerError
from iapeer.core.settings import Settings
from iapeer.daemon.server import DaemonServer
from iapeer.daemon.services import Services
from iapeer.lifecycle import rules
from iapeer.registry.index import Registry
from iapeer.registry.profiles import reindex_peer
from iapeer.registry.rename import recover_rename
from iapeer.routing.admission import Admission
from iapeer.routing.archive import ArchiveService
from iapeer.routing.fleet import FleetService
from iapeer.routing.foreign import ForeignServices, ForeignWrites
from iapeer.routing.guards import Attempt, Guards
from iapeer.routing.inboxes import Inboxes
from iapeer.routing.lanes.pool import Lanes
from iapeer.routing.lanes.services import LaneServices
from iapeer.routing.notices import Notices, NoticeServices
from iapeer.routing.router import Guarded, Router
from iapeer.routing.tokens import HookEvidence, SessionTokens
from iapeer.routing.waits import Waits
from iapeer.runtimes.catalog import Catalog
from iapeer.sessions import spool
from iapeer.sessions.doors.appserver import AppServerDoor
from iapeer.sessions.doors.inbox import InboxDoor
from iapeer.sessions.doors.paste import PaneDoor, PasteDoor
from iapeer.sessions.handoff import sweep_handoffs
from iapeer.sessions.launch import Launcher
from iapeer.sessions.notify import make_notifier
from iapeer.sessions.plan import Surroundings
from iapeer.sessions.process import DeathWatch
from iapeer.sessions.tmux.server import require_tmux
from iapeer.storage.atomic import ensure_private_dir
from iapeer.storage.ledger import messages
from iapeer.storage.ledger.offline import offline
from iapeer.storage.ledger.store import Ledger
from iapeer.storage.locks import DaemonLock
from iapeer.storage.logs import LogFile, lifecycle_record
from iapeer.storage.paths import Paths

from .channels import channels
from .common import open_registry
from .prompts import composer


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
        registry = open_registry(paths, environ)
        with contextlib.suppress(IapeerError):
            # A registry that can't be written is reported by `status`; it must not stop mail.
            _recover(paths, registry)
        sweep_handoffs(paths.run)
        spool.sweep(paths.run, spool.PASTE_STEM)

        clock, waits = SystemClock(), Waits()
        lifecycle_log = LogFile(
            paths.lifecycle_log, settings.lifecycle_log_max_bytes, settings.lifecycle_log_keep
        )
        exits_log = LogFile(paths.exits_log, settings.log_max_bytes, settings.log_keep)

        def log(ev: str, **fields: object) -> None:
            lifecycle_log.append(lifecycle_record(clock.now(), ev, **fields))

        def exits(fields: Mapping[str, object]) -> None:
            values = dict(fields)
            exits_log.append(lifecycle_record(clock.now(), str(values.pop("ev")), **values))

        notices = Notices(NoticeServices(ledger, registry, clock, settings, log))
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
                channels=channels(),
                compose=composer(paths, registry, environ, log),
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
                "appserver": AppServerDoor(),
            },
            deaths=deaths,
            notifier=notifier,
            waits=waits,
            decide=rules.bind(settings),
            log=log,
            exits=exits,
            notices=notices,
        )
        lanes = Lanes(services)
        notices.deliver = lanes.work
        delivery_log = LogFile(paths.delivery_log, settings.log_max_bytes, settings.log_keep)

        def too_deep(attempt: Attempt) -> None:
            log("too-deep", sender=attempt.sender, to=attempt.recipient, depth=attempt.depth)

        guards = Guards(settings, clock, too_deep)
        guarded = Guarded(
            settings=settings,
            clock=clock,
            ledger=ledger,
            admission=Admission(settings, registry, catalog, environ, guards.admit),
        )
        unguarded = Admission(settings, registry, catalog, environ)
        server = DaemonServer(
            settings,
            Services(
                postman=Router(guarded, lanes, waits, delivery_log),
                archive=ArchiveService(ledger, registry, unguarded, lanes, clock, delivery_log),
                fleet=FleetService(lanes, services, paths),
                evidence=HookEvidence(lanes),
                inbox=Inboxes(lanes, services),
                tokens=SessionTokens(ledger, registry),
                version=__version__,
            ),
        )
        foreign = ForeignWrites(ForeignServices(ledger, lanes, notifier, paths.pokes, log))
        stack.push_async_callback(foreign.close)
        foreign.start()
        await lanes.load()
        stack.push_async_callback(lanes.close)
        await server.start()
        stack.push_async_callback(server.stop)
        lanes.start()
        await notices.resume()
        yield Daemon(server, lanes)


def _recover(paths: Paths, registry: Registry) -> None:
    """Finish or undo a rename that was cut short, and give a uid to peers of an older version."""

    def rename_state(uid: str, _old: str, new: str) -> None:
        with offline(paths.ledger) as conn:
            messages.retarget(conn, uid, new)

    recover_rename(paths, registry, rename_state)
    for record in registry.snapshot():
        if not record.uid and Path(record.cwd).is_dir():
            reindex_peer(registry, Path(record.cwd))
