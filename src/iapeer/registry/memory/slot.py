"""The memory slot: `<root>/memory-provider.json`, written by a provider and only read here."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec

from iapeer.core.errors import StorageError
from iapeer.storage.jsonfile import read_json


class Command(msgspec.Struct, frozen=True):
    """A program of the provider, by its full path, and its arguments with placeholders."""

    command: str
    args: tuple[str, ...] = ()

    def argv(self, values: dict[str, str]) -> list[str]:
        """Return the words to run; `{name}` inside an argument becomes its value, once."""
        return [self.command, *(_filled(arg, values) for arg in self.args)]


class Slot(msgspec.Struct, frozen=True, kw_only=True):
    """The provider that holds the slot; `heartbeat` is "" when it declares none."""

    provider: str
    package: str
    version: str
    registered_at: str = ""
    heartbeat: str = ""
    provision: Command | None = None
    unprovision: Command | None = None


def read_slot(path: Path) -> Slot | None:
    """Return who holds the slot; a file that is missing, unreadable or invalid is an empty slot.

    Unknown keys are passed over.
    """
    try:
        raw = read_json(path) if path.is_file() else None
    except (StorageError, OSError):
        return None
    if not isinstance(raw, dict):
        return None
    provider, package, version = (_text(raw, key) for key in ("provider", "package", "version"))
    if not (provider and package and version):
        return None
    heartbeat = _text(raw, "heartbeat")
    return Slot(
        provider=provider,
        package=package,
        version=version,
        registered_at=_text(raw, "registeredAt"),
        heartbeat=heartbeat if heartbeat.startswith("/") else "",
        provision=_command(raw.get("provision")),
        unprovision=_command(raw.get("unprovision")),
    )


def heartbeat_age_s(slot: Slot, now: float) -> int | None:
    """Return the seconds since the provider's daemon gave a sign (epoch `now`), None without."""
    if not slot.heartbeat:
        return None
    try:
        touched = Path(slot.heartbeat).stat().st_mtime
    except (OSError, ValueError):
        return None
    return max(0, math.floor(now - touched))


def slot_facts(slot: Slot | None, now: float) -> dict[str, Any] | None:
    """Return the slot as `status --json` shows it; the age is null without a heartbeat file."""
    if slot is None:
        return None
    facts: dict[str, Any] = {
        "provider": slot.provider,
        "package": slot.package,
        "version": slot.version,
    }
    if slot.heartbeat:
        facts["heartbeat_age_s"] = heartbeat_age_s(slot, now)
    return facts


def slot_line(slot: Slot | None, now: float) -> str:
    """Return the slot as `status` says it."""
    if slot is None:
        return "memory: none"
    age = heartbeat_age_s(slot, now)
    if not slot.heartbeat:
        sign = ""
    elif age is None:
        sign = " (daemon not running — no heartbeat file)"
    else:
        sign = f" (heartbeat {age}s ago)"
    return f"memory: {slot.provider} {slot.version}{sign}"


def _text(raw: dict[str, Any], key: str) -> str:
    value = raw.get(key)
    return value.strip() if isinstance(value, str) else ""


def _command(raw: object) -> Command | None:
    """Return a command; one that is not written as it must be counts as absent."""
    if not isinstance(raw, dict):
        return None
    command, args = raw.get("command"), raw.get("args", [])
    if not isinstance(command, str) or not command.startswith("/") or "\0" in command:
        return None
    if not isinstance(args, list) or not all(isinstance(a, str) and "\0" not in a for a in args):
        return None
    return Command(command, tuple(args))


def _filled(text: str, values: dict[str, str]) -> str:
    """Replace placeholders in one pass: a value that looks like one stays as it is."""
    parts = []
    while text:
        at, name = min(
            ((text.find(f"{{{name}}}"), name) for name in values if f"{{{name}}}" in text),
            default=(-1, ""),
        )
        if at < 0:
            break
        parts += [text[:at], values[name]]
        text = text[at + len(name) + 2 :]
    return "".join([*parts, text])
