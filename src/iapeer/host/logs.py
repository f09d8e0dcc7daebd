"""The daemon's log files, as the functions that the rest of the house writes them with."""

from __future__ import annotations

import logging

import msgspec

from iapeer.core.clock import Clock
from iapeer.core.settings import Settings
from iapeer.routing.lanes.services import LifecycleLog
from iapeer.storage.logs import LogFile, lifecycle_record
from iapeer.storage.paths import Paths


class Logs(msgspec.Struct, frozen=True):
    """One writer per file: lifecycle.log and delivery.log.

    exits.log belongs to those who see a death from within: the server's hook and the recorder.
    """

    lifecycle: LifecycleLog
    delivery: LogFile


def open_logs(settings: Settings, paths: Paths, clock: Clock) -> Logs:
    """Return the writers; each opens its file at each line, so nothing needs to be closed.

    The first line may be a warning about the settings.
    """
    lifecycle = LogFile(
        paths.lifecycle_log, settings.lifecycle_log_max_bytes, settings.lifecycle_log_keep
    )

    def log(ev: str, **fields: object) -> None:
        lifecycle.append(lifecycle_record(clock.now(), ev, **fields))

    _warn_of_order(settings, log)
    delivery = LogFile(paths.delivery_log, settings.log_max_bytes, settings.log_keep)
    return Logs(log, delivery)


def _warn_of_order(settings: Settings, log: LifecycleLog) -> None:
    """Say so when the bounds of a quiet session are not in the order that they mean something in.

    Silence of an ephemeral worker after its word < without a word < of any session.
    """
    bounds = (settings.ephemeral_quiet_s, settings.ephemeral_unarmed_idle_s, settings.idle_s)
    if not bounds[0] < bounds[1] < bounds[2]:
        reason = "ephemeral_quiet_s < ephemeral_unarmed_idle_s < idle_s does not hold: {} {} {}"
        text = reason.format(*(f"{bound:g}" for bound in bounds))
        logging.getLogger("iapeer").warning(text)
        log("settings-order", reason=text)
