from __future__ import annotations

import json
from pathlib import Path

import pytest

from iapeer.core.errors import InvalidInput, PeerNotFound, ProfileError, RegistryError
from iapeer.core.identity import Intelligence
from iapeer.core.profile import RegistryRecord
from iapeer.registry.declared import add_runtime, set_default_runtime
from iapeer.registry.index import Registry
from iapeer.registry.profiles import BirthSpec, ensure_profile, read_profile, update_profile
from iapeer.storage.paths import Paths, profile_path


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(Paths(tmp_path / "root"), sandbox=True)


def born(registry: Registry, tmp_path: Path, name: str = "bob", runtime: str = "claude") -> Path:
    cwd = tmp_path / name
    cwd.mkdir()
    ensure_profile(registry, BirthSpec(cwd=cwd, runtime=runtime))
    return cwd


@pytest.mark.requirement("cli:default-runtime")
def test_a_nature_nobody_stated_stays_when_the_default_changes(
    registry: Registry, tmp_path: Path
) -> None:
    cwd = born(registry, tmp_path)
    raw = json.loads(profile_path(cwd).read_bytes())
    del raw["intelligence"]
    profile_path(cwd).write_text(json.dumps({**raw, "own": [1]}), encoding="utf-8")
    add_runtime(registry, "bob", "webhook")
    done = set_default_runtime(registry, "bob", "webhook")
    assert done.action == "flipped"
    assert done.record.intelligence is Intelligence.ARTIFICIAL
    assert read_profile(cwd).intelligence is Intelligence.ARTIFICIAL
    assert json.loads(profile_path(cwd).read_bytes())["own"] == [1]


@pytest.mark.requirement("cli:add-runtime", "cli:default-runtime")
def test_a_peer_of_the_service_manager_is_left_alone(registry: Registry, tmp_path: Path) -> None:
    cwd = born(registry, tmp_path, "clock", "notifier")
    before = profile_path(cwd).read_bytes()
    assert add_runtime(registry, "clock", "claude").action == "skipped-infra-peer"
    assert set_default_runtime(registry, "clock", "claude").action == "skipped-infra-peer"
    assert profile_path(cwd).read_bytes() == before


@pytest.mark.requirement("cli:add-runtime", "cli:default-runtime")
def test_what_can_not_be_declared_is_refused(registry: Registry, tmp_path: Path) -> None:
    born(registry, tmp_path)
    for change in (add_runtime, set_default_runtime):
        with pytest.raises(InvalidInput, match="infrastructure"):
            change(registry, "bob", "telegram")
        with pytest.raises(InvalidInput, match="invalid runtime"):
            change(registry, "bob", "No")
        with pytest.raises(PeerNotFound):
            change(registry, "eve", "codex")


def test_the_profile_decides_and_the_index_follows(registry: Registry, tmp_path: Path) -> None:
    cwd = born(registry, tmp_path)
    add_runtime(registry, "bob", "codex")

    def narrowed(records: dict[str, RegistryRecord]) -> None:
        record = records["bob"]
        records["bob"] = RegistryRecord(
            personality="bob",
            default_runtime="claude",
            runtimes=("claude",),
            intelligence=record.intelligence,
            cwd=record.cwd,
            uid=record.uid,
        )

    registry.change(narrowed)
    done = add_runtime(registry, "bob", "codex")
    assert (done.action, done.record.runtimes) == ("already", ("claude", "codex"))
    assert registry.snapshot().require("bob").runtimes == read_profile(cwd).runtimes


def test_both_files_change_or_neither(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cwd = born(registry, tmp_path)
    before = profile_path(cwd).read_bytes(), registry.paths.registry.read_bytes()

    def full(*given: object) -> None:
        raise RegistryError("the disk is full")

    monkeypatch.setattr(registry, "_write", full)
    with pytest.raises(RegistryError):
        add_runtime(registry, "bob", "codex")
    assert (profile_path(cwd).read_bytes(), registry.paths.registry.read_bytes()) == before


def test_a_folder_that_is_gone_or_anothers_is_not_touched(
    registry: Registry, tmp_path: Path
) -> None:
    cwd = born(registry, tmp_path)
    cwd.rename(tmp_path / "elsewhere")
    with pytest.raises(ProfileError, match="peer-profile"):
        add_runtime(registry, "bob", "codex")
    assert not cwd.exists()
    other = Registry(Paths(tmp_path / "other"), sandbox=True)
    (tmp_path / "x").mkdir()
    moved = born(other, tmp_path / "x", "eve")
    moved.rename(cwd)
    with pytest.raises(ProfileError, match="is of peer 'eve', not of 'bob'"):
        add_runtime(registry, "bob", "codex")
    assert update_profile(cwd, lambda profile: profile).runtimes == ("claude",)
