"""A rename that is killed at any step is complete, in its old or its new state, after recovery."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from iapeer.core import env
from iapeer.registry import rename as renaming
from iapeer.registry.index import Registry
from iapeer.registry.profiles import BirthSpec, ensure_profile, read_profile
from iapeer.registry.rename import journal_path, recover_rename
from iapeer.storage.paths import Paths

SOURCE = Path(renaming.__file__).parents[2]
CHILD = """
import json, sys
from pathlib import Path
from iapeer.core.errors import StorageError
from iapeer.registry.index import Registry
from iapeer.registry.rename import RenameRules, recover_rename, rename
from iapeer.storage.atomic import write_text
from iapeer.storage.paths import Paths

paths, what, ledger = Paths(Path(sys.argv[1])), sys.argv[2], Path(sys.argv[3])

def rename_state(uid, old, new):
    if what == "refused" and new == "rob":
        raise StorageError("ledger is busy")
    write_text(ledger, json.dumps({uid: new}))

registry = Registry(paths, sandbox=True)
if what == "recover":
    recover_rename(paths, registry, rename_state)
else:
    rename(paths, registry, "bob", "rob", RenameRules(lambda identity: False, rename_state))
"""
FORWARD = {
    "rename.journal": "bob",
    "rename.folder": "bob",
    "rename.profile": "bob",
    "rename.registry": "rob",
    "rename.one_launch_file": "rob",
    "rename.launch_files": "rob",
    "rename.state": "rob",
    "rename.done": "rob",
}
"""Fault point -> the name the peer has after recovery."""
BACKWARD = {"rename.undo_launch_files": "rob", "rename.undo_registry": "bob"}
"""The same for a rename that the ledger refuses, so that it is put back."""


class World:
    """One peer with everything a rename touches."""

    def __init__(self, folder: Path) -> None:
        self.paths = Paths(folder / "root")
        self.ledger = folder / "ledger.json"
        self.registry = Registry(self.paths, sandbox=True)
        cwd = self.paths.peer_home("bob")
        cwd.mkdir(parents=True, mode=0o700)
        (cwd / "work.txt").write_text("precious", encoding="utf-8")
        birth = ensure_profile(self.registry, BirthSpec(cwd=cwd, runtime="claude"))
        self.uid = birth.profile.uid
        self.ledger.write_text(json.dumps({self.uid: "bob"}), encoding="utf-8")
        self.paths.lifecycle_state.mkdir(parents=True)
        for name in ("claude-bob.stopped", "claude-bob.wake", "codex-bob.x"):
            (self.paths.lifecycle_state / name).write_text(name, encoding="utf-8")

    def run(self, what: str, point: str = "") -> int:
        """Rename or recover in a child that dies at `point`; return its exit status."""
        return subprocess.run(
            [sys.executable, "-c", CHILD, str(self.paths.root), what, str(self.ledger)],
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(SOURCE),
                "HOME": "/nonexistent",
                env.FAULT: point,
            },
            capture_output=True,
            timeout=60,
            check=False,
        ).returncode

    def assert_complete(self, name: str) -> None:
        other = "rob" if name == "bob" else "bob"
        cwd = self.paths.peer_home(name)
        profile = read_profile(cwd)
        (record,) = self.registry.snapshot()
        assert (profile.personality, profile.uid) == (name, self.uid)
        assert (record.personality, record.uid, record.cwd) == (name, self.uid, str(cwd))
        assert (cwd / "work.txt").read_text(encoding="utf-8") == "precious"
        assert not self.paths.peer_home(other).exists()
        assert json.loads(self.ledger.read_text(encoding="utf-8")) == {self.uid: name}
        assert sorted(entry.name for entry in self.paths.lifecycle_state.iterdir()) == [
            f"claude-{name}.stopped",
            f"claude-{name}.wake",
            f"codex-{name}.x",
        ]
        assert not journal_path(self.paths).exists()

    def rename_state(self, uid: str, old: str, new: str) -> None:
        assert json.loads(self.ledger.read_text(encoding="utf-8"))[uid] in {old, new}
        self.ledger.write_text(json.dumps({uid: new}), encoding="utf-8")

    def recover(self) -> None:
        recover_rename(self.paths, self.registry, self.rename_state)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.requirement("registry:rename:whole")
@pytest.mark.parametrize(("point", "name"), FORWARD.items())
def test_a_rename_killed_at_a_step_is_finished_or_undone(
    world: World, point: str, name: str
) -> None:
    assert world.run("rename", point) == -signal.SIGKILL
    assert journal_path(world.paths).exists()
    world.recover()
    world.assert_complete(name)
    world.recover()
    world.assert_complete(name)


@pytest.mark.parametrize(("point", "name"), BACKWARD.items())
def test_a_rename_killed_while_it_is_put_back_is_finished_or_undone(
    world: World, point: str, name: str
) -> None:
    assert world.run("refused", point) == -signal.SIGKILL
    assert journal_path(world.paths).exists()
    world.recover()
    world.assert_complete(name)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("rename.registry", "rename.one_launch_file"),
        ("rename.one_launch_file", "rename.launch_files"),
        ("rename.launch_files", "rename.state"),
    ],
)
def test_a_recovery_may_be_killed_too(world: World, first: str, second: str) -> None:
    assert world.run("rename", first) == -signal.SIGKILL
    assert world.run("recover", second) == -signal.SIGKILL
    world.recover()
    world.assert_complete("rob")


def test_every_fault_point_of_the_module_is_tried() -> None:
    source = Path(renaming.__file__).read_text("utf-8")
    points = {part.split('"')[0] for part in source.split('fault("')[1:]}
    assert points == set(FORWARD) | set(BACKWARD)


def test_without_a_fault_the_same_child_succeeds(world: World) -> None:
    assert world.run("rename") == 0
    world.assert_complete("rob")
