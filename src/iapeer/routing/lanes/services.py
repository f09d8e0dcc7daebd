"""What all lanes share; made once by the composition root."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import msgspec

from iapeer.core.clock import Clock
from iapeer.core.settings import Settings
from iapeer.registry.index import Registry
from iapeer.routing.waits import Waits
from iapeer.runtimes.catalog import Catalog
from iapeer.sessions.doors.port import Door
from iapeer.sessions.launch import Launcher
from iapeer.sessions.notify import Notifier
from iapeer.sessions.process import Deaths
from iapeer.storage.ledger.store import Ledger

from .presence import Rules

if TYPE_CHECKING:
    from iapeer.routing.notices import Notices

    from .budget import RuntimeBudget
    from .lane import Lane


class LifecycleLog(Protocol):
    """One line of lifecycle.log per decision."""

    def __call__(self, ev: str, **fields: object) -> None:
        """Write event `ev` with its fields."""


class LaneServices(msgspec.Struct, frozen=True):
    """The world of a lane."""

    settings: Settings
    clock: Clock
    ledger: Ledger
    registry: Registry
    catalog: Catalog
    launcher: Launcher
    doors: Mapping[str, Door]
    deaths: Deaths
    notifier: Notifier
    waits: Waits
    rules: Rules
    budget: RuntimeBudget
    log: LifecycleLog
    notices: Notices
    by_session: dict[str, Lane] = msgspec.field(default_factory=dict)
    """Which lane a live session belongs to."""
