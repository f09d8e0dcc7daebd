"""What a session says about itself while no daemon runs; the next one finds it in the ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from sqlite3 import Connection

from iapeer.core import env
from iapeer.core.clock import SystemClock
from iapeer.core.errors import Unauthorized
from iapeer.core.ids import token_digest
from iapeer.core.settings import Settings
from iapeer.routing.own import answer_of, check_may_renew
from iapeer.routing.ownmarks import arm, want_fresh
from iapeer.routing.ports import SelfAnswer
from iapeer.storage.ledger import sessions as rows
from iapeer.storage.ledger.offline import offline
from iapeer.storage.ledger.rows import SessionRow
from iapeer.storage.paths import Paths
from iapeer.storage.pokes import poke

from .common import check_owner, open_registry


def offline_done(settings: Settings, environ: Mapping[str, str]) -> SelfAnswer:
    """Note that the calling session's task is finished. Wakes nobody.

    Raises Unauthorized without the token of a session that has not ended, StorageError.
    """
    return _note(settings, environ, arm)


def offline_fresh(settings: Settings, environ: Mapping[str, str]) -> SelfAnswer:
    """Note that the calling session wants to be replaced; the next daemon does it.

    Raises Unauthorized, ControlRefused (`service_managed`), StorageError.
    """

    def want(conn: Connection, row: SessionRow, now: float) -> None:
        check_may_renew(settings, row)
        want_fresh(conn, row, now)

    return _note(settings, environ, want)


def _note(
    settings: Settings,
    environ: Mapping[str, str],
    note: Callable[[Connection, SessionRow, float], None],
) -> SelfAnswer:
    check_owner(settings.root)
    paths = Paths(settings.root)
    token = environ.get(env.SESSION_TOKEN, "").strip()
    with offline(paths.ledger, settings.busy_timeout_s) as conn:
        row = rows.by_token(conn, token_digest(token)) if token else None
        if row is None:
            raise Unauthorized(
                "this call needs the token of a session that runs",
                hint=f"it is made in a session that iapeer started ({env.SESSION_TOKEN})",
            )
        note(conn, row, SystemClock().now())
    poke(paths.pokes)
    return answer_of(row, open_registry(paths, environ))
