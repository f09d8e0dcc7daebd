from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from iapeer.core.errors import (
    IapeerError,
    InvalidInput,
    PeerExists,
    PeerLive,
    PeerNotFound,
    ProfileError,
    RegistryError,
    StorageError,
)
from iapeer.registry import rename as renaming
from iapeer.registry.index import PeerUpdate, Registry
from iapeer.registry.profiles import BirthSpec, ensure_profile, read_profile
from iapeer.registry.rename import RenameRules, journal_path, recover_rename, rename
from iapeer.storage.paths import Paths, profile_path


class Ledger:
    """The ledger's rows as far as renaming goes: uid -> name."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.fail = False

    def rename(self, uid: str, old: str, new: str) -> None:
        if self.fail:
            raise StorageError("ledger is busy")
        assert self.names[uid] in {old, new}
        self.names[uid] = new


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "root")


@pytest.fixture
def registry(paths: Paths) -> Registry:
    return Registry(paths, sandbox=True)


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def rules(ledger: Ledger) -> RenameRules:
    return RenameRules(is_live=lambda _: False, rename_state=ledger.rename)


def born(registry: Registry, ledger: Ledger, cwd: Path) -> str:
    """Make a peer with a file of work, launch files and a ledger row; return its uid."""
    cwd.mkdir(parents=True)
    (cwd / "work.txt").write_text("precious", encoding="utf-8")
    uid = ensure_profile(registry, BirthSpec(cwd=cwd, runtime="claude")).profile.uid
    name = read_profile(cwd).personality
    state = registry.paths.lifecycle_state
    state.mkdir(parents=True, exist_ok=True)
    (state / f"claude-{name}.stopped").write_text("s", encoding="utf-8")
    (state / f"codex-{name}.queue").mkdir()
    (state / f"claude-{name}2.stopped").write_text("another peer's", encoding="utf-8")
    ledger.names[uid] = name
    return uid


def assert_is(registry: Registry, ledger: Ledger, name: str, cwd: Path) -> None:
    """Assert that the only peer is `name` in `cwd`, complete, and nothing else is left."""
    profile = read_profile(cwd)
    (record,) = registry.snapshot()
    assert (profile.personality, record.personality, record.cwd) == (name, name, str(cwd))
    assert record.uid == profile.uid
    assert ledger.names == {profile.uid: name}
    assert (cwd / "work.txt").read_text(encoding="utf-8") == "precious"
    assert [entry.name for entry in cwd.parent.iterdir() if entry.is_dir()] == [cwd.name]
    left = {entry.name for entry in registry.paths.lifecycle_state.iterdir()}
    assert {f"claude-{name}.stopped", f"codex-{name}.queue"} <= left
    assert len(left) == 3
    assert not journal_path(registry.paths).exists()


@pytest.mark.requirement("registry:rename:whole")
def test_a_rename_takes_folder_profile_index_launch_files_and_ledger_along(
    paths: Paths, registry: Registry, ledger: Ledger, rules: RenameRules
) -> None:
    uid = born(registry, ledger, paths.peer_home("bob"))
    report = rename(paths, registry, "bob", "Rob", rules)
    assert (report.action, report.new, report.cwd) == (
        "renamed",
        "rob",
        str(paths.peer_home("rob")),
    )
    assert_is(registry, ledger, "rob", paths.peer_home("rob"))
    assert read_profile(paths.peer_home("rob")).uid == uid
    assert (paths.lifecycle_state / "claude-bob2.stopped").read_text(
        encoding="utf-8"
    ) == "another peer's"


def test_foreign_keys_and_words_survive(
    paths: Paths, registry: Registry, ledger: Ledger, rules: RenameRules
) -> None:
    born(registry, ledger, paths.peer_home("bob"))
    path = profile_path(paths.peer_home("bob"))
    path.write_text(
        json.dumps(
            json.loads(path.read_text(encoding="utf-8")) | {"notifier": 1, "intelligence": "human"}
        ),
        encoding="utf-8",
    )
    raw = json.loads(paths.registry.read_text(encoding="utf-8"))
    raw["peers"][0] |= {"nickname": "b", "intelligence": "human"}
    paths.registry.write_text(json.dumps(raw), encoding="utf-8")
    rename(paths, registry, "bob", "rob", rules)
    entry = json.loads(paths.registry.read_text(encoding="utf-8"))["peers"][0]
    assert (entry["nickname"], entry["intelligence"]) == ("b", "human")
    assert (
        json.loads(profile_path(paths.peer_home("rob")).read_text(encoding="utf-8"))["notifier"]
        == 1
    )


def test_a_folder_named_after_the_peer_moves_wherever_it_is(
    paths: Paths, registry: Registry, ledger: Ledger, rules: RenameRules, tmp_path: Path
) -> None:
    born(registry, ledger, tmp_path / "work" / "My Bob")
    rename(paths, registry, "my-bob", "rob", rules)
    assert_is(registry, ledger, "rob", tmp_path / "work" / "rob")


def test_a_folder_with_a_name_of_its_own_stays(
    paths: Paths, registry: Registry, ledger: Ledger, rules: RenameRules, tmp_path: Path
) -> None:
    born(registry, ledger, tmp_path / "work" / "bob")
    (tmp_path / "work" / "bob").rename(tmp_path / "work" / "project")
    registry.upsert(
        PeerUpdate(personality="bob", runtime="claude", cwd=str(tmp_path / "work" / "project"))
    )
    rename(paths, registry, "bob", "rob", rules)
    assert_is(registry, ledger, "rob", tmp_path / "work" / "project")


def test_a_peer_from_before_the_uid_gets_one_and_keeps_it(
    paths: Paths, registry: Registry, ledger: Ledger, tmp_path: Path
) -> None:
    cwd = tmp_path / "work" / "bob"
    profile_path(cwd).parent.mkdir(parents=True)
    profile_path(cwd).write_text('{"personality": "bob", "runtime": "claude"}', encoding="utf-8")
    registry.upsert(PeerUpdate(personality="bob", runtime="claude", cwd=str(cwd)))
    seen = []
    rules = RenameRules(lambda _: False, lambda uid, old, new: seen.append((uid, old, new)))
    rename(paths, registry, "bob", "rob", rules)
    uid = registry.snapshot().require("rob").uid
    assert seen == [(uid, "bob", "rob")]
    assert read_profile(tmp_path / "work" / "rob").uid == uid != ""


def test_launch_files_of_a_peer_that_once_had_the_name_are_not_inherited(
    paths: Paths, registry: Registry, ledger: Ledger, rules: RenameRules
) -> None:
    born(registry, ledger, paths.peer_home("bob"))
    (paths.lifecycle_state / "goose-rob.stopped").write_text("old", encoding="utf-8")
    rename(paths, registry, "bob", "rob", rules)
    assert_is(registry, ledger, "rob", paths.peer_home("rob"))


Spoil = Callable[[Paths, Registry, Ledger], None]


def _spoil_nothing(paths: Paths, registry: Registry, ledger: Ledger) -> None:
    pass


def _spoil_folder(paths: Paths, registry: Registry, ledger: Ledger) -> None:
    (paths.root / "peers" / "rob").write_text("in the way", encoding="utf-8")


def _spoil_profile(paths: Paths, registry: Registry, ledger: Ledger) -> None:
    profile_path(paths.peer_home("bob")).write_text("{", encoding="utf-8")


def _spoil_name(paths: Paths, registry: Registry, ledger: Ledger) -> None:
    path = profile_path(paths.peer_home("bob"))
    path.write_text(
        json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"personality": "eve"}),
        encoding="utf-8",
    )


def _spoil_uid(paths: Paths, registry: Registry, ledger: Ledger) -> None:
    path = profile_path(paths.peer_home("bob"))
    path.write_text(
        json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"uid": "f" * 32}),
        encoding="utf-8",
    )


def _spoil_profile_missing(paths: Paths, registry: Registry, ledger: Ledger) -> None:
    profile_path(paths.peer_home("bob")).unlink()


def _spoil_taken(paths: Paths, registry: Registry, ledger: Ledger) -> None:
    registry.upsert(PeerUpdate(personality="rob", runtime="claude", cwd="/elsewhere/rob"))


@pytest.mark.requirement("registry:rename:checks")
@pytest.mark.parametrize(
    ("old", "new", "spoil", "error"),
    [
        ("bob", "bob", _spoil_nothing, InvalidInput),
        ("bob", "42", _spoil_nothing, InvalidInput),
        ("bob", "iapeer", _spoil_nothing, InvalidInput),
        ("carl", "rob", _spoil_nothing, PeerNotFound),
        ("bob", "rob", _spoil_taken, PeerExists),
        ("bob", "rob", _spoil_folder, PeerExists),
        ("bob", "rob", _spoil_profile, ProfileError),
        ("bob", "rob", _spoil_profile_missing, ProfileError),
        ("bob", "rob", _spoil_name, ProfileError),
        ("bob", "rob", _spoil_uid, ProfileError),
    ],
)
def test_what_can_not_be_renamed_is_refused_untouched(
    paths: Paths,
    registry: Registry,
    ledger: Ledger,
    rules: RenameRules,
    old: str,
    new: str,
    spoil: Spoil,
    error: type[IapeerError],
) -> None:
    born(registry, ledger, paths.peer_home("bob"))
    spoil(paths, registry, ledger)
    before = {path: path.read_bytes() if path.is_file() else b"" for path in paths.root.rglob("*")}
    with pytest.raises(error):
        rename(paths, registry, old, new, rules)
    (paths.state / "rename.lock").unlink(missing_ok=True)
    after = {path: path.read_bytes() if path.is_file() else b"" for path in paths.root.rglob("*")}
    before.setdefault(paths.state, b"")
    after.setdefault(paths.state, b"")
    assert after == before


@pytest.mark.requirement("registry:rename:live")
def test_a_live_peer_is_refused_on_any_of_its_runtimes(
    paths: Paths, registry: Registry, ledger: Ledger
) -> None:
    born(registry, ledger, paths.peer_home("bob"))
    ensure_profile(registry, BirthSpec(cwd=paths.peer_home("bob"), runtime="codex"))
    rules = RenameRules(lambda identity: identity.runtime == "codex", ledger.rename)
    with pytest.raises(PeerLive, match="codex-bob"):
        rename(paths, registry, "bob", "rob", rules)
    assert_is(registry, ledger, "bob", paths.peer_home("bob"))


STEPS = ["_move_folder", "_rename_record", "_rename_launch_files", "_rewrite_profile"]


@pytest.mark.requirement("registry:rename:whole")
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_step_that_fails_puts_everything_back(
    paths: Paths,
    registry: Registry,
    ledger: Ledger,
    rules: RenameRules,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    when: str,
) -> None:
    born(registry, ledger, paths.peer_home("bob"))
    real = getattr(renaming, step)
    calls = []

    def fail_once(*args: object) -> None:
        calls.append(step)
        if len(calls) == 1 and when == "before":
            raise StorageError("no space left")
        real(*args)
        if len(calls) == 1:
            raise StorageError("no space left")

    monkeypatch.setattr(renaming, step, fail_once)
    with pytest.raises(StorageError, match="no space left"):
        rename(paths, registry, "bob", "rob", rules)
    assert calls
    assert_is(registry, ledger, "bob", paths.peer_home("bob"))
    monkeypatch.undo()
    rename(paths, registry, "bob", "rob", rules)
    assert_is(registry, ledger, "rob", paths.peer_home("rob"))


def test_an_index_that_can_not_be_written_puts_everything_back(
    paths: Paths,
    registry: Registry,
    ledger: Ledger,
    rules: RenameRules,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    born(registry, ledger, paths.peer_home("bob"))

    def fail(*_: object) -> None:
        raise RegistryError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(registry, "_write", fail)
        with pytest.raises(RegistryError, match="disk full"):
            rename(paths, registry, "bob", "rob", rules)
    assert_is(registry, ledger, "bob", paths.peer_home("bob"))


def test_a_ledger_that_refuses_leaves_a_journal_if_it_refuses_the_way_back_too(
    paths: Paths, registry: Registry, ledger: Ledger, rules: RenameRules
) -> None:
    born(registry, ledger, paths.peer_home("bob"))
    ledger.fail = True
    with pytest.raises(StorageError, match="ledger is busy"):
        rename(paths, registry, "bob", "rob", rules)
    assert journal_path(paths).exists()
    ledger.fail = False
    with pytest.raises(StorageError, match="interrupted rename"):
        rename(paths, registry, "rob", "bert", rules)
    report = recover_rename(paths, registry, ledger.rename)
    assert report is not None
    assert report.action == "finished"
    assert_is(registry, ledger, "rob", paths.peer_home("rob"))


def test_a_ledger_that_refuses_once_puts_everything_back(
    paths: Paths, registry: Registry, ledger: Ledger
) -> None:
    born(registry, ledger, paths.peer_home("bob"))

    def refuse_new(uid: str, old: str, new: str) -> None:
        if new == "rob":
            raise StorageError("ledger is busy")
        ledger.rename(uid, old, new)

    with pytest.raises(StorageError, match="ledger is busy"):
        rename(paths, registry, "bob", "rob", RenameRules(lambda _: False, refuse_new))
    assert_is(registry, ledger, "bob", paths.peer_home("bob"))


def test_without_a_journal_there_is_nothing_to_recover(
    paths: Paths, registry: Registry, ledger: Ledger
) -> None:
    assert recover_rename(paths, registry, ledger.rename) is None
    assert not paths.root.exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"old": 1}'])
def test_a_journal_that_is_none_is_an_error_that_names_it(
    paths: Paths, registry: Registry, ledger: Ledger, text: str
) -> None:
    paths.state.mkdir(parents=True, mode=0o700)
    journal_path(paths).write_text(text, encoding="utf-8")
    with pytest.raises(StorageError, match=r"rename\.json"):
        recover_rename(paths, registry, ledger.rename)
    assert journal_path(paths).exists()


def test_a_namesake_made_meanwhile_is_not_taken_for_the_renamed_peer(
    paths: Paths, registry: Registry, ledger: Ledger, rules: RenameRules, tmp_path: Path
) -> None:
    born(registry, ledger, paths.peer_home("bob"))
    ledger.fail = True
    profile = read_profile(paths.peer_home("bob"))
    journal = {"old": "bob", "new": "rob", "uid": profile.uid}
    journal |= {"old_cwd": str(paths.peer_home("bob")), "new_cwd": str(paths.peer_home("rob"))}
    journal_path(paths).parent.mkdir(parents=True, exist_ok=True)
    journal_path(paths).write_text(json.dumps(journal), encoding="utf-8")
    namesake = tmp_path / "elsewhere" / "rob"
    namesake.mkdir(parents=True)
    ensure_profile(registry, BirthSpec(cwd=namesake, runtime="claude"))
    report = recover_rename(paths, registry, ledger.rename)
    assert report is not None
    assert report.action == "undone"
    assert registry.snapshot().require("rob").cwd == str(namesake)
    assert registry.snapshot().require("bob").uid == profile.uid
