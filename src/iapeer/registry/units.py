"""Peers whose sessions the service manager starts and ends: those with a unit file of their own.

A unit that this program wrote says so in a line of its own; any other one is somebody else's.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

UNIT = "iapeer-peer@{personality}.service"
SENTINEL = "X-IAPeer-Managed=true"
"""A line of a unit file of ours; systemd ignores keys that begin with `X-`."""
_MAX_BYTES = 1 << 16


class Unit(StrEnum):
    """Whose unit a peer has."""

    NONE = "none"
    OURS = "ours"
    FOREIGN = "foreign"


def unit_path(folder: Path, personality: str) -> Path:
    """Return where a peer's unit file would be."""
    return folder / UNIT.format(personality=personality)


def unit_of(folder: Path, personality: str) -> Unit:
    """Return whose unit file a peer has; one that can't be read is somebody else's."""
    try:
        with unit_path(folder, personality).open("rb") as file:
            lines = file.read(_MAX_BYTES).decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return Unit.NONE
    except OSError:
        return Unit.FOREIGN
    return Unit.OURS if SENTINEL in (line.strip() for line in lines) else Unit.FOREIGN
