"""The daemon: everybody is bound to everybody here, opened in one order, closed in the reverse."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec

from iapeer import __version__
from iapeer.core.clock import SystemClock
from iapeer.core.errors import IapeerError
from iapeer.core.settings import Settings
from iapeer.daemon.server import DaemonServer
from iapeer.daemon.services import Services
from iapeer.lifecycle.rules import LifecycleRules
from iapeer.registry.index import Registry
from iapeer.registry.profiles import reindex_peer
from iapeer.registry.rename import recover_rename
from iapeer.routing.admission import Admission
from iapeer.routing.archive import ArchiveService
from iapeer.routing.fleet import FleetService
from iapeer.routing.foreign import ForeignServices, ForeignWrites
from iapeer.routing.guards import Attempt, Guards
from iapeer.routing.inboxes import Inboxes
from iapeer.routing.lanes.budget import RuntimeBudget
from iapeer.routing.lanes.pool import Lanes
from iapeer.routing.lanes.services import LaneServices
from iapeer.routing.notices import Notices, NoticeServices
from iapeer.routing.own import OwnSessions
from iapeer.routing.router import Guarded, Router
from iapeer.routing.tokens import HookEvidence, SessionTokens
from iapeer.routing.waits import Waits
from iapeer.runtimes.catalog import Catalog
from iapeer.sessions import spool
from iapeer.sessions.canary.keeper import Keeper
from iapeer.sessions.handoff import sweep_handoffs
from iapeer.sessions.launch import Launcher
from iapeer.sessions.model import TmuxSession
from iapeer.sessions.notify import make_notifier
from iapeer.sessions.plan import Surroundings
from iapeer.sessions.process import DeathWatch
from iapeer.sessions.tmux.server import require_tmux
from iapeer.storage.atomic import ensure_private_dir
from iapeer.storage.ledger import messages
from iapeer.storage.ledger.offline import offline
from iapeer.storage.ledger.store import Ledger
from iapeer.storage.locks import DaemonLock
from iapeer.storage.paths import Paths

from .channels import channels
from .common import open_registry
from .doors import Doors
from .logs import open_logs
from .prompts import composer


class Daemon(msgspec.Struct):
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
        stopped = _was_stopped(paths)
        stack.callback(_note_stop, paths)
        ledger = Ledger.open(paths.ledger, settings.busy_timeout_s)
        stack.callback(ledger.close)
        registry = open_registry(paths, environ)
        with contextlib.suppress(IapeerError):
            # A registry that can't be written is reported by `status`; it must not stop mail.
            _recover(paths, registry)
        sweep_handoffs(paths.run)
        spool.sweep(paths.run, spool.PASTE_STEM)

        clock, waits = SystemClock(), Waits()
        logs = open_logs(settings, paths, clock)
        log = logs.lifecycle
        notices = Notices(NoticeServices(ledger, registry, clock, settings, log))
        stack.push_async_callback(notices.close)
        deaths, notifier = DeathWatch(), make_notifier()
        stack.callback(deaths.close)
        stack.callback(notifier.close)
        # Read by whoever first asks for a runtime: an agent that starts, a message, `status`.
        catalog = Catalog(settings.runtimes_dir)
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
                log=log,
                stopped=stopped,
                compose=composer(paths, registry, environ, log),
            )
        )
        stack.push_async_callback(launcher.close)
        services = LaneServices(
            settings=settings,
            clock=clock,
            ledger=ledger,
            registry=registry,
            catalog=catalog,
            launcher=launcher,
            doors=Doors(settings),
            deaths=deaths,
            notifier=notifier,
            waits=waits,
            rules=LifecycleRules(settings),
            budget=RuntimeBudget(settings.peers_before_broken, log),
            log=log,
            notices=notices,
        )
        keeper = Keeper(paths, settings, lambda: _sessions(services), launcher.guard)
        lanes = Lanes(services)
        notices.deliver = lanes.work

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
                postman=Router(guarded, lanes, waits, logs.delivery),
                archive=ArchiveService(ledger, registry, unguarded, lanes, clock, logs.delivery),
                fleet=FleetService(lanes, services, paths),
                own=OwnSessions(settings, ledger, registry, lanes, clock),
                evidence=HookEvidence(lanes),
                inbox=Inboxes(lanes, services),
                tokens=SessionTokens(ledger, registry, lanes),
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
        keeper.start()
        stack.push_async_callback(keeper.close)
        await notices.resume()
        yield Daemon(server, lanes)


def _sessions(services: LaneServices) -> list[TmuxSession]:
    """Return the sessions in tmux that live now."""
    found = [lane.session for lane in services.by_session.values()]
    return [session for session in found if isinstance(session, TmuxSession)]


def _was_stopped(paths: Paths) -> bool:
    """Tell whether the daemon before this one ended in order; this one has not yet."""
    with contextlib.suppress(FileNotFoundError):
        paths.stopped.unlink()
        return True
    return False


def _note_stop(paths: Paths) -> None:
    """Tell the next daemon that this one ended in order."""
    with contextlib.suppress(OSError):
        paths.stopped.touch(mode=0o600)


def _recover(paths: Paths, registry: Registry) -> None:
    """Finish or undo a rename that was cut short, and give a uid to peers of an older version."""

    def rename_state(uid: str, _old: str, new: str) -> None:
        with offline(paths.ledger) as conn:
            messages.retarget(conn, uid, new)

    recover_rename(paths, registry, rename_state)
    for record in registry.snapshot():
        if not record.uid and Path(record.cwd).is_dir():
            reindex_peer(registry, Path(record.cwd))
