"""What an operator may do with files and ledger while no daemon runs."""

from __future__ import annotations

import os
from typing import Any

from iapeer.core.clock import SystemClock
from iapeer.core.errors import PeerLive
from iapeer.core.identity import Identity
from iapeer.core.profile import RegistryRecord
from iapeer.core.settings import Settings
from iapeer.registry.admin import RemoveRules
from iapeer.registry.admin import remove as remove_peer
from iapeer.registry.memory.care import Care, Cared, lifecycle_log
from iapeer.registry.rename import RenameRules
from iapeer.registry.rename import rename as rename_peer
from iapeer.sessions.process import is_alive
from iapeer.storage.ledger import marks, messages
from iapeer.storage.ledger import sessions as rows
from iapeer.storage.ledger.offline import offline, offline_read
from iapeer.storage.paths import Paths

from .common import open_registry


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

    left: list[Cared] = []
    care = Care(paths, os.environ, lifecycle_log(settings))
    rules = RemoveRules(
        is_live, purge, before_purge=lambda gone: left.append(care.leaving(gone)), force=force
    )
    registry = open_registry(paths, os.environ)
    report = remove_peer(paths, registry, name, rules)
    return {
        "personality": name,
        "action": report.action,
        "cwd": report.cwd,
        "purged": list(report.purged),
        "failed_messages": failed,
        "memory": [line for cared in left for line in cared.lines],
        "warnings": [warning for cared in left for warning in cared.warnings],
    }


def offline_rename(settings: Settings, old: str, new: str) -> dict[str, Any]:
    """Rename a peer while no daemon runs. Raises PeerLive when its session outlived the daemon."""
    paths = Paths(settings.root)
    rules_ = RenameRules(
        is_live=lambda identity: _outlived(paths, settings, identity),
        rename_state=lambda uid, _old, name: _retarget(paths, settings, uid, name),
    )
    report = rename_peer(paths, open_registry(paths, os.environ), old, new, rules_)
    return {"old": report.old, "new": report.new, "cwd": report.cwd, "action": report.action}


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
