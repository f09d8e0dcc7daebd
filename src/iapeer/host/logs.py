"""The daemon's log files, as the functions that the rest of the house writes them with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from iapeer.core.clock import Clock
from iapeer.core.settings import Settings
from iapeer.routing.lanes.services import LifecycleLog
from iapeer.storage.logs import LogFile, lifecycle_record
from iapeer.storage.paths import Paths


@dataclass(frozen=True)
class Logs:
    """One writer per file: lifecycle.log and delivery.log.

    `exits` takes what a lane learned of a death. exits.log itself belongs to those who saw it from
    within: the server's hook and the recorder.
    """

    lifecycle: LifecycleLog
    exits: Callable[[Mapping[str, object]], None]
    delivery: LogFile


def open_logs(settings: Settings, paths: Paths, clock: Clock) -> Logs:
    """Return the writers; each opens its file at each line, so nothing needs to be closed."""
    lifecycle = LogFile(
        paths.lifecycle_log, settings.lifecycle_log_max_bytes, settings.lifecycle_log_keep
    )

    def log(ev: str, **fields: object) -> None:
        lifecycle.append(lifecycle_record(clock.now(), ev, **fields))

    def exits(fields: Mapping[str, object]) -> None:
        log("death", **{name: value for name, value in fields.items() if name != "ev"})

    delivery = LogFile(paths.delivery_log, settings.log_max_bytes, settings.log_keep)
    return Logs(log, exits, delivery)
