from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from iapeer.registry import profiles
from iapeer.registry.index import PeerUpdate, Registry
from iapeer.registry.profiles import BirthSpec, ensure_profile, read_profile
from iapeer.registry.verify import (
    fix,
    fix_lines,
    fix_warnings,
    verify,
    verify_lines,
)
from iapeer.storage.locks import hold
from iapeer.storage.paths import Paths, profile_path

STAMP = "2026-11-22"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "root")


@pytest.fixture
def registry(paths: Paths) -> Registry:
    return Registry(paths, sandbox=True)


def born(registry: Registry, name: str, **fields: Any) -> Path:
    cwd = registry.paths.peer_home(name)
    cwd.mkdir(parents=True, mode=0o700)
    ensure_profile(registry, BirthSpec(cwd=cwd, runtime="claude", **fields))
    return cwd


def edit(path: Path, **fields: object) -> None:
    """Change keys of a JSON file by hand; None removes one."""
    raw = json.loads(path.read_text(encoding="utf-8")) | fields
    path.write_text(
        json.dumps({key: value for key, value in raw.items() if value is not None}),
        encoding="utf-8",
    )


def records(paths: Paths) -> dict[str, dict[str, Any]]:
    return {
        entry["personality"]: entry
        for entry in json.loads(paths.registry.read_text(encoding="utf-8"))["peers"]
    }


def tree(paths: Paths) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes() for path in sorted(paths.root.rglob("*")) if path.is_file()
    }


def test_sound_peers_have_no_findings(registry: Registry, paths: Paths) -> None:
    born(registry, "ann")
    born(registry, "bob")
    report = verify(registry)
    assert (report.peers, report.errors, report.drift, report.reconcile) == (2, 0, 0, ())
    assert verify_lines(report) == ["2 peers · 0 error(s) · 0 index↔local drift(s)"]
    assert report.to_json() == {
        "peers": 2,
        "errors": 0,
        "drift": 0,
        "reconcile": [],
        "issues": [],
        "problems": [],
    }


@pytest.mark.requirement("registry:verify:drift", "registry:verify:missing-profile")
def test_verify_reads_only_and_tells_drift_errors_and_warnings(
    registry: Registry, paths: Paths
) -> None:
    edit(profile_path(born(registry, "ann")), description="new", runtimes=["claude", "codex"])
    edit(profile_path(born(registry, "bob")), wake_policy="sometimes", runtime="codex")
    edit(profile_path(born(registry, "eva")), intelligence="alien")
    profile_path(born(registry, "gone")).unlink()
    before = tree(paths)
    report = verify(registry)
    assert tree(paths) == before
    assert verify_lines(report) == [
        "↯ ann: index↔local drift on runtimes, description",
        (
            "⚠ bob: default_runtime (mirror \"runtime\" diverged: 'codex'), "
            "wake_policy ('sometimes' is ignored, only \"ephemeral\" counts)"
        ),
        "✗ eva: intelligence (unknown intelligence 'alien', use artificial|natural|absent)",
        f"✗ gone: missing ({profile_path(paths.peer_home('gone'))} does not exist)",
        "4 peers · 2 error(s) · 1 index↔local drift(s)",
    ]
    assert report.to_json()["reconcile"] == [
        {
            "personality": "ann",
            "cwd": str(paths.peer_home("ann")),
            "drift": ["runtimes", "description"],
        },
        {"personality": "eva", "cwd": str(paths.peer_home("eva")), "drift": None},
        {"personality": "gone", "cwd": str(paths.peer_home("gone")), "drift": None},
    ]


def test_a_corrupt_record_and_a_corrupt_file_are_findings(registry: Registry, paths: Paths) -> None:
    born(registry, "ann")
    raw = json.loads(paths.registry.read_text(encoding="utf-8"))
    raw["peers"].append({"personality": "bad"})
    paths.registry.write_text(json.dumps(raw), encoding="utf-8")
    report = verify(registry)
    assert (report.peers, report.errors) == (1, 1)
    assert verify_lines(report)[0].startswith("✗ bad: peers-profiles.json corrupted:")
    paths.registry.write_text("{", encoding="utf-8")
    report = verify(registry)
    assert (report.peers, report.errors) == (0, 1)
    assert verify_lines(report)[0].startswith("✗ index: peers-profiles.json corrupted, restore")


def test_a_shared_uid_is_an_error(registry: Registry, paths: Paths) -> None:
    born(registry, "ann")
    born(registry, "bob")
    raw = json.loads(paths.registry.read_text(encoding="utf-8"))
    raw["peers"][1]["uid"] = raw["peers"][0]["uid"]
    paths.registry.write_text(json.dumps(raw), encoding="utf-8")
    assert verify(registry).errors == 2


@pytest.mark.requirement("registry:fix:reindex")
def test_fix_makes_the_index_follow_the_profiles_narrowed_runtimes_too(
    registry: Registry, paths: Paths
) -> None:
    cwd = born(registry, "ann")
    ensure_profile(registry, BirthSpec(cwd=cwd, runtime="codex"))
    edit(profile_path(cwd), runtimes=["claude"], description="new")
    report = fix(registry, STAMP)
    assert fix_lines(report) == ["self-healed index from local profiles"]
    assert fix_warnings(report) == []
    assert records(paths)["ann"]["runtimes"] == ["claude"]
    assert records(paths)["ann"]["runtime"] == "claude"
    assert verify(registry).drift == 0


@pytest.mark.requirement("names:intelligence:verbatim")
def test_fix_keeps_the_indexs_legacy_word_while_it_means_the_same(
    registry: Registry, paths: Paths
) -> None:
    cwd = born(registry, "ann", intelligence="natural")
    raw = json.loads(paths.registry.read_text(encoding="utf-8"))
    raw["peers"][0]["intelligence"] = "human"
    paths.registry.write_text(json.dumps(raw), encoding="utf-8")
    fix(registry, STAMP)
    assert records(paths)["ann"]["intelligence"] == "human"
    edit(profile_path(cwd), intelligence="absent")
    fix(registry, STAMP)
    assert records(paths)["ann"]["intelligence"] == "absent"


@pytest.mark.requirement("registry:fix:migrate")
def test_fix_migrates_the_legacy_shape_once_and_keeps_the_rest(
    registry: Registry, paths: Paths
) -> None:
    legacy = {
        "personality": "ann",
        "runtime": "claude",
        "intelligence": "human",
        "initial_prompt": "hi",
        "wake_policy": "ephemeral",
        "interfaces": {"telegram": {"bot": "x"}},
        "notifier": {"a": 1},
    }
    cwd = born(registry, "ann")
    profile_path(cwd).write_text(json.dumps(legacy), encoding="utf-8")
    report = fix(registry, STAMP)
    assert fix_lines(report)[0] == "migrated runtime→default_runtime ann"
    disk = json.loads(profile_path(cwd).read_text(encoding="utf-8"))
    uid = disk.pop("uid")
    assert disk == legacy | {"default_runtime": "claude", "runtimes": ["claude"]}
    assert records(paths)["ann"]["uid"] == uid
    assert fix(registry, STAMP).migrated == ()


@pytest.mark.requirement("registry:fix:migrate")
def test_fix_heals_a_diverged_mirror_to_the_default(registry: Registry) -> None:
    cwd = born(registry, "ann")
    edit(profile_path(cwd), runtime="codex")
    assert fix(registry, STAMP).migrated == ("ann",)
    disk = json.loads(profile_path(cwd).read_text(encoding="utf-8"))
    assert (disk["default_runtime"], disk["runtime"]) == ("claude", "claude")


@pytest.mark.requirement("registry:verify:missing-profile", "registry:fix:migrate")
def test_fix_touches_no_profile_with_errors_and_keeps_records_without_profile(
    registry: Registry, paths: Paths
) -> None:
    bad = born(registry, "bad")
    edit(profile_path(bad), default_runtime=None, runtimes="claude")
    before = profile_path(bad).read_bytes()
    profile_path(born(registry, "gone")).unlink()
    report = fix(registry, STAMP)
    assert profile_path(bad).read_bytes() == before
    assert set(records(paths)) == {"bad", "gone"}
    assert fix_warnings(report) == [
        f"gone: local profile missing in {paths.peer_home('gone')}, record kept"
    ]
    assert verify(registry).errors > 0


@pytest.mark.requirement("registry:fix:quarantine")
def test_fix_puts_corrupt_records_aside_and_rebuilds_those_that_have_a_profile(
    registry: Registry, paths: Paths
) -> None:
    born(registry, "ann")
    cwd = born(registry, "bob")
    raw = json.loads(paths.registry.read_text(encoding="utf-8"))
    raw["peers"][1]["intelligence"] = "alien"
    raw["peers"] += ["junk", {"personality": "lost", "cwd": "/nowhere"}]
    paths.registry.write_text(json.dumps(raw), encoding="utf-8")
    report = fix(registry, STAMP)
    aside = report.healed.quarantine
    assert aside == paths.quarantine / f"{STAMP}-records.json"
    assert json.loads(aside.read_text(encoding="utf-8")) == raw["peers"][1:]
    assert stat.S_IMODE(aside.stat().st_mode) == 0o600
    assert fix_lines(report) == [
        f"quarantined corrupt records: {aside}",
        "rebuilt from its local profile: bob",
        "self-healed index from local profiles",
    ]
    assert fix_warnings(report) == ["a nameless record: quarantined", "lost: quarantined"]
    assert records(paths)["bob"]["uid"] == read_profile(cwd).uid
    registry.upsert(PeerUpdate(personality="new", runtime="claude", cwd="/new"))


def test_a_second_quarantine_of_the_day_does_not_overwrite_the_first(
    registry: Registry, paths: Paths
) -> None:
    paths.root.mkdir(mode=0o700)
    for junk in ("one", "two"):
        paths.registry.write_text(json.dumps({"version": 2, "peers": [junk]}), encoding="utf-8")
        fix(registry, STAMP)
    kept = sorted(path.read_text(encoding="utf-8") for path in paths.quarantine.iterdir())
    assert [json.loads(text) for text in kept] == [["one"], ["two"]]


@pytest.mark.requirement("registry:fix:quarantine")
def test_fix_rebuilds_a_file_that_is_no_json_from_the_folders_it_names_and_the_default_homes(
    registry: Registry, paths: Paths, tmp_path: Path
) -> None:
    born(registry, "ann")
    away = tmp_path / "away" / "bob"
    away.mkdir(parents=True)
    ensure_profile(registry, BirthSpec(cwd=away, runtime="claude"))
    broken = paths.registry.read_text(encoding="utf-8").replace('"version": 2,', '"version": 2')
    paths.registry.write_text(broken, encoding="utf-8")
    report = fix(registry, STAMP)
    assert report.healed.quarantine is not None
    assert report.healed.quarantine.read_text(encoding="utf-8") == broken
    assert {name: entry["cwd"] for name, entry in records(paths).items()} == {
        "ann": str(paths.peer_home("ann")),
        "bob": str(away),
    }
    assert verify(registry).errors == 0
    paths.registry.write_text("", encoding="utf-8")
    fix(registry, STAMP)
    assert set(records(paths)) == {"ann"}


def test_fix_follows_a_profile_that_names_the_peer_differently(
    registry: Registry, paths: Paths
) -> None:
    edit(profile_path(born(registry, "ann")), personality="eva")
    assert verify(registry).findings[0].drift == ("personality",)
    fix(registry, STAMP)
    assert set(records(paths)) == {"eva"}
    edit(profile_path(born(registry, "bob")), personality="eva")
    fix(registry, STAMP)
    assert set(records(paths)) == {"bob", "eva"}
    assert verify(registry).findings[0].drift == ("personality",)


def test_fix_writes_no_profile_that_is_fine_and_tells_of_one_it_could_not_write(
    registry: Registry, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiles, "LOCK_TIMEOUT_S", 0.05)
    cwd = born(registry, "ann")
    with hold(cwd / ".iapeer" / "state" / "peer-profile.json.lock", 1, "it"):
        assert fix(registry, STAMP).failed == ()
        edit(profile_path(cwd), default_runtime=None)
        report = fix(registry, STAMP)
    assert report.migrated == ()
    (line,) = fix_warnings(report)
    assert line.startswith("ann: profile not migrated: the profile of")


def test_fix_on_an_empty_host_is_harmless(registry: Registry, paths: Paths) -> None:
    report = fix(registry, STAMP)
    assert (report.migrated, report.missing, report.healed.quarantine) == ((), (), None)
    assert verify_lines(verify(registry)) == ["0 peers · 0 error(s) · 0 index↔local drift(s)"]
