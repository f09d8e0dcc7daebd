"""What is pinned: `pins.toml`, and the package.json with its lock that npm is given for it."""

from __future__ import annotations

import functools
import hashlib
import json
import platform
import sys
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from iapeer.core.errors import ConfigError, InvalidInput

from .errors import NotForThisMachine

PINS = Path(__file__).with_name("pins.toml")
_MACHINES = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}


class Program(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The one package that holds a CLI for one platform."""

    package: str
    release: str = ""
    """The package's version; empty: the CLI's."""
    program: str
    """Path of the executable inside the package."""
    integrity: str
    """Subresource integrity of the tarball: `sha512-<base64>`."""

    def __post_init__(self) -> None:
        """Raise ValueError for a hash that is weaker than sha512 or a path that leads outside."""
        if not self.integrity.startswith("sha512-") or len(self.integrity) != 95:
            raise ValueError(f"{self.package}: integrity must be sha512-<88 characters>")
        if self.program.startswith("/") or ".." in self.program.split("/"):
            raise ValueError(f"{self.package}: {self.program} is not inside the package")


class Pin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One agent CLI in the one version the tests know."""

    command: str
    """What it is called on PATH."""
    version: str
    """What its `--version` says, without the name."""
    needs_node: bool = False
    """It is a script: node runs it, not only installs it."""
    platforms: dict[str, Program]
    """By `platform_key()`, or `any`."""

    def here(self, key: str | None = None) -> Program:
        """Return the program for a platform; `key` is this machine's by default.

        Raises NotForThisMachine.
        """
        wanted = key or platform_key()
        found = self.platforms.get(wanted) or self.platforms.get("any")
        if found is None:
            known = ", ".join(sorted(self.platforms))
            raise NotForThisMachine(
                f"{self.command} {self.version} is not pinned for {wanted} (only: {known})"
            )
        return found


def platform_key() -> str:
    """Return this machine as npm names it, such as `linux-x64`, `linux-arm64-musl`."""
    machine = platform.machine().lower()
    key = f"{sys.platform}-{_MACHINES.get(machine, machine)}"
    if sys.platform.startswith("linux") and platform.libc_ver()[0] != "glibc":
        return f"{key}-musl"
    return key


@functools.cache
def load_pins() -> dict[str, Pin]:
    """Return all pins by the agent's name. Raises ConfigError for a bad `pins.toml`."""
    try:
        found = tomllib.loads(PINS.read_text(encoding="utf-8"))
        return msgspec.convert(found, dict[str, Pin])
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"{PINS.name}: {error}") from error


def pin_of(name: str) -> Pin:
    """Return the pin of one agent. Raises InvalidInput for a name that is not pinned."""
    pins = load_pins()
    if name not in pins:
        raise InvalidInput(f"no agent {name!r} is pinned (known: {', '.join(pins)})")
    return pins[name]


def package_json(pin: Pin, program: Program) -> str:
    """Return the project file: one dependency, the package with the program itself.

    A dependency, not an optional one: npm passes over an optional one that can't be had.
    """
    return _json({"private": True, "dependencies": {program.package: _release(pin, program)}})


def package_lock(pin: Pin, program: Program) -> str:
    """Return the lock for `npm ci`: version and hash, no address.

    npm asks its configured registry for the address of an entry without `resolved`, and refuses a
    tarball whose hash is another (EINTEGRITY; both measured with npm 11.19). What the package says
    it depends on is not in the lock and so not installed: each of ours runs alone.
    """
    release = _release(pin, program)
    return _json(
        {
            "name": "agents",
            "lockfileVersion": 3,
            "requires": True,
            "packages": {
                "": {"dependencies": {program.package: release}},
                f"node_modules/{program.package}": {
                    "version": release,
                    "integrity": program.integrity,
                },
            },
        }
    )


def stamp(pin: Pin, program: Program) -> str:
    """Return what a finished install of exactly this pin is known by."""
    parts = (package_json(pin, program), package_lock(pin, program), program.program, pin.command)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _release(pin: Pin, program: Program) -> str:
    return program.release or pin.version


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2) + "\n"
