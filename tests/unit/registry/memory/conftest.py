"""A root, a home and a peer of both agent programs, all below a temporary folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from iapeer.core.identity import Intelligence
from iapeer.core.profile import RegistryRecord
from iapeer.registry.memory.care import Care
from iapeer.storage.paths import Paths

_PROVIDER = """#!/bin/sh
printf '%s|' "$@" >> "{calls}"
env | sort > "{calls}.env"
read -r line && echo "stdin: $line" >> "{calls}"
echo >> "{calls}"
{script}
"""


@dataclass
class Host:
    """What a test of memory works with."""

    paths: Paths
    home: Path
    record: RegistryRecord
    logged: list[dict[str, object]] = field(default_factory=list)

    @property
    def cwd(self) -> Path:
        return Path(self.record.cwd)

    @property
    def config(self) -> Path:
        """Codex's configuration."""
        return self.home / ".codex" / "config.toml"

    @property
    def calls(self) -> list[str]:
        """What the provider was asked, one line per call."""
        file = self.home / "calls"
        return file.read_text(encoding="utf-8").splitlines() if file.exists() else []

    @property
    def given(self) -> dict[str, str]:
        """The environment of the provider's last call."""
        lines = (self.home / "calls.env").read_text(encoding="utf-8").splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def care(self, **environ: str) -> Care:
        def log(ev: str, **fields: object) -> None:
            self.logged.append({"ev": ev, **fields})

        base = {"HOME": str(self.home), "PATH": "/usr/bin:/bin"}
        return Care(self.paths, {**base, **environ}, log)

    def hold(self, script: str = "exit 0", **keys: Any) -> None:
        """Put a provider into the slot; its program notes its arguments, then runs `script`."""
        program = self.home / "provider"
        text = _PROVIDER.format(calls=self.home / "calls", script=script)
        program.write_text(text, encoding="utf-8")
        program.chmod(0o700)
        args = ["{cwd}", "{runtime}-{personality}", "{occasion}"]
        command = {"command": str(program), "args": args}
        slot: dict[str, Any] = {
            "provider": "mem",
            "package": "@x/mem",
            "version": "1.2",
            "registeredAt": "2026",
        }
        slot |= {"provision": command, "unprovision": command, **keys}
        self.paths.memory_slot.write_text(json.dumps(slot), encoding="utf-8")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    root, home = tmp_path / "root", tmp_path / "home"
    cwd = root / "peers" / "bob"
    for folder in (root, home, root / "peers", cwd):
        folder.mkdir(mode=0o700)
    record = RegistryRecord(
        personality="bob",
        default_runtime="claude",
        runtimes=("claude", "codex", "demo"),
        intelligence=Intelligence.ARTIFICIAL,
        cwd=str(cwd),
        uid="u" * 32,
    )
    return Host(Paths(root), home, record)


Write = Callable[[Path, str], Path]


@pytest.fixture
def write() -> Write:
    """Write a file with its folders, mode 0640."""

    def go(path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o640)
        return path

    return go
