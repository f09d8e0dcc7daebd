from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from iapeer.core.errors import (
    InvalidInput,
    PeerExists,
    RegistryError,
    RuntimeUnknown,
    StorageError,
)
from iapeer.core.identity import Identity
from iapeer.core.profile import Profile, RegistryRecord
from iapeer.registry.admin import (
    DOCTRINE_NAME,
    DOCTRINE_TEMPLATE,
    BirthRules,
    CreateSpec,
    RemoveReport,
    RemoveRules,
    create,
    init,
    lifecycle_files,
    remove,
)
from iapeer.registry.index import Registry
from iapeer.registry.profiles import BirthSpec, read_profile
from iapeer.storage.paths import Paths, peer_dir, profile_path

RULES = BirthRules(frozenset({"claude", "codex", "telegram", "notifier"}))


class World:
    """What `remove` is told of sessions and what it does above us, in order."""

    def __init__(self, registry: Registry, *live: str) -> None:
        self.registry = registry
        self.live = live
        self.done: list[tuple[str, str, bool]] = []

    def rules(self, *, force: bool = False) -> RemoveRules:
        return RemoveRules(
            is_live=lambda identity: identity.address in self.live,
            purge_state=self._note,
            before_purge=lambda record: self._note("before", record),
            force=force,
        )

    def _note(self, what: str, record: RegistryRecord) -> None:
        files = bool(lifecycle_files(self.registry.paths, record.personality))
        assert self.registry.snapshot().get(record.personality) is None
        self.done.append((what, record.personality, files))


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "root")


@pytest.fixture
def registry(paths: Paths) -> Registry:
    return Registry(paths, sandbox=True)


def spec(name: str = "bob", runtime: str = "claude", **fields: Any) -> CreateSpec:
    return CreateSpec(name=name, runtime=runtime, **fields)


def put_state(paths: Paths, *names: str) -> None:
    paths.lifecycle_state.mkdir(parents=True, exist_ok=True)
    for name in names:
        (paths.lifecycle_state / name).write_text("x", encoding="utf-8")


def state(paths: Paths) -> list[str]:
    return sorted(entry.name for entry in paths.lifecycle_state.iterdir())


# --- create and init ----------------------------------------------------------------------------


@pytest.mark.requirement("registry:create:home")
def test_a_peer_is_made_in_its_default_home_with_a_normalised_name(
    paths: Paths, registry: Registry
) -> None:
    born = create(paths, registry, spec("My Bob", description="x"), RULES)
    assert born.created
    assert born.record.cwd == str(paths.root / "peers" / "my-bob")
    assert read_profile(paths.peer_home("my-bob")).personality == "my-bob"
    assert registry.snapshot().require("my-bob").description == "x"


@pytest.mark.requirement("registry:create:two-humans")
def test_two_humans_on_one_runtime_are_natural(paths: Paths, registry: Registry) -> None:
    for name in ("ann", "bob"):
        create(paths, registry, spec(name, "telegram"), RULES)
    assert [record.intelligence.value for record in registry.snapshot()] == ["natural", "natural"]


@pytest.mark.requirement("registry:create:again")
def test_create_is_idempotent(paths: Paths, registry: Registry) -> None:
    first = create(paths, registry, spec(), RULES)
    before = paths.registry.read_bytes()
    again = create(paths, registry, spec("BOB"), RULES)
    assert not again.created
    assert again.profile.uid == first.profile.uid
    assert paths.registry.read_bytes() == before


@pytest.mark.requirement("registry:create:home")
def test_a_path_must_be_named_after_the_peer(
    paths: Paths, registry: Registry, tmp_path: Path
) -> None:
    create(paths, registry, spec(path=tmp_path / "work" / "Bob"), RULES)
    assert registry.snapshot().require("bob").cwd == str(tmp_path / "work" / "Bob")
    with pytest.raises(InvalidInput, match="not named after"):
        create(paths, registry, spec("ann", path=tmp_path / "work" / "other"), RULES)
    assert not (tmp_path / "work" / "other").exists()


@pytest.mark.requirement("registry:create:occupied")
def test_a_folder_of_another_peer_is_refused_and_untouched(
    paths: Paths, registry: Registry, tmp_path: Path
) -> None:
    cwd = tmp_path / "bob"
    profile_path(cwd).parent.mkdir(parents=True)
    profile_path(cwd).write_text(
        json.dumps({"personality": "ann", "runtime": "claude"}), encoding="utf-8"
    )
    before = profile_path(cwd).read_bytes()
    with pytest.raises(PeerExists, match="already holds peer 'ann'"):
        create(paths, registry, spec(path=cwd), RULES)
    assert profile_path(cwd).read_bytes() == before


@pytest.mark.parametrize("name", ["iapeer", "Iapeer", "42", "---", ""])
def test_reserved_and_invalid_names_are_refused(
    paths: Paths, registry: Registry, name: str
) -> None:
    with pytest.raises(InvalidInput):
        create(paths, registry, spec(name), RULES)
    assert not paths.root.exists()


def test_an_unknown_runtime_is_refused_naming_the_known_ones(
    paths: Paths, registry: Registry, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeUnknown, match="goose") as caught:
        create(paths, registry, spec(runtime="goose"), RULES)
    assert caught.value.hint == "known runtimes: claude, codex, notifier, telegram"
    with pytest.raises(RuntimeUnknown):
        init(registry, BirthSpec(cwd=tmp_path, runtime="goose"), RULES)
    assert not paths.root.exists()


@pytest.mark.requirement("profile:birth:whole")
def test_a_refused_peer_leaves_no_folder_but_one_that_was_there_stays(
    paths: Paths, registry: Registry, tmp_path: Path
) -> None:
    def refuse(_: Profile) -> None:
        raise StorageError("foreign unit")

    rules = BirthRules(RULES.known_runtimes, refuse)
    present = tmp_path / "ann"
    present.mkdir()
    for one in (spec("bob", "telegram"), spec("ann", "telegram", path=present)):
        with pytest.raises(StorageError, match="foreign unit"):
            create(paths, registry, one, rules)
    assert not paths.peer_home("bob").exists()
    assert list(present.iterdir()) == []


def test_a_name_that_lives_elsewhere_is_refused_and_its_folder_taken_away(
    paths: Paths, registry: Registry, tmp_path: Path
) -> None:
    create(paths, registry, spec(path=tmp_path / "bob"), RULES)
    with pytest.raises(PeerExists):
        create(paths, registry, spec(), RULES)
    assert not paths.peer_home("bob").exists()


def test_a_peer_that_could_not_be_written_leaves_no_folder(
    paths: Paths, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RegistryError("disk full")

    monkeypatch.setattr(registry, "_write", fail)
    with pytest.raises(RegistryError, match="disk full"):
        create(paths, registry, spec(), RULES)
    assert not paths.peer_home("bob").exists()


def test_init_needs_a_folder_and_uses_its_name(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is not a folder"):
        init(registry, BirthSpec(cwd=tmp_path / "no", runtime="claude"), RULES)
    (tmp_path / "ann").mkdir()
    born = init(registry, BirthSpec(cwd=tmp_path / "ann", runtime="claude"), RULES)
    assert born.record.personality == "ann"


def test_a_doctrine_that_was_taken_away_comes_back_with_the_next_create(
    paths: Paths, registry: Registry
) -> None:
    for _ in range(2):
        create(paths, registry, spec(), RULES)
        doctrine = peer_dir(paths.peer_home("bob")) / DOCTRINE_NAME
        assert doctrine.read_text(encoding="utf-8") == DOCTRINE_TEMPLATE
        doctrine.unlink()


def test_a_doctrine_that_is_a_link_is_left_alone_also_when_it_leads_nowhere(
    paths: Paths, registry: Registry, tmp_path: Path
) -> None:
    cwd = tmp_path / "bob"
    peer_dir(cwd).mkdir(parents=True)
    link = peer_dir(cwd) / DOCTRINE_NAME
    link.symlink_to(tmp_path / "shared.md")
    init(registry, BirthSpec(cwd=cwd, runtime="claude"), RULES)
    assert link.is_symlink()
    assert not (tmp_path / "shared.md").exists()


def test_a_refused_peer_gets_no_doctrine(paths: Paths, registry: Registry, tmp_path: Path) -> None:
    create(paths, registry, spec(path=tmp_path / "bob"), RULES)
    other = tmp_path / "other" / "bob"
    other.mkdir(parents=True)
    with pytest.raises(PeerExists):
        init(registry, BirthSpec(cwd=other, runtime="claude"), RULES)
    assert list(other.rglob(DOCTRINE_NAME)) == []


# --- remove -------------------------------------------------------------------------------------


@pytest.mark.requirement("registry:remove:order", "registry:remove:neighbours")
def test_remove_takes_record_then_tells_then_purges_and_keeps_the_folder(
    paths: Paths, registry: Registry
) -> None:
    born = create(paths, registry, spec(), RULES)
    create(paths, registry, spec("bob2"), RULES)
    own = ["claude-bob.stopped", "claude-bob.system-prompt.md", "codex-bob.wake"]
    others = ["claude-bob2.stopped", "claude-bob", "x-claude-bob.y", "claude-a-bob.z"]
    put_state(paths, *own, *others)
    queue = paths.lifecycle_state / "claude-bob.queue"
    (queue / "deep").mkdir(parents=True)
    (paths.lifecycle_state / "claude-bob.link").symlink_to(paths.root / "peers")
    world = World(registry)
    report = remove(paths, registry, "bob", world.rules())
    assert report == RemoveReport(
        "bob",
        "removed",
        str(paths.peer_home("bob")),
        ("claude-bob.link", "claude-bob.queue", *own),
    )
    assert world.done == [("before", "bob", True), (born.profile.uid, "bob", False)]
    assert state(paths) == sorted(others)
    assert read_profile(paths.peer_home("bob")).personality == "bob"
    assert [record.personality for record in registry.snapshot()] == ["bob2"]


@pytest.mark.requirement("registry:remove:absent")
def test_removing_an_absent_peer_is_no_error_and_completes_a_removal_that_was_cut_short(
    paths: Paths, registry: Registry
) -> None:
    world = World(registry)
    assert remove(paths, registry, "bob", world.rules()) == RemoveReport("bob", "absent")
    put_state(paths, "claude-bob.stopped", "claude-ann.stopped")
    report = remove(paths, registry, "bob", world.rules())
    assert (report.action, report.purged) == ("absent", ("claude-bob.stopped",))
    assert state(paths) == ["claude-ann.stopped"]
    assert world.done == []


@pytest.mark.requirement("registry:remove:live")
def test_a_live_peer_is_refused_on_any_runtime_unless_forced(
    paths: Paths, registry: Registry
) -> None:
    create(paths, registry, spec(), RULES)
    create(paths, registry, spec(runtime="codex"), RULES)
    put_state(paths, "claude-bob.stopped")
    world = World(registry, "codex-bob")
    report = remove(paths, registry, "bob", world.rules())
    assert (report.action, report.live) == ("refused-live", (Identity("codex", "bob"),))
    assert registry.snapshot().get("bob") is not None
    assert state(paths) == ["claude-bob.stopped"]
    assert world.done == []
    assert remove(paths, registry, "bob", world.rules(force=True)).action == "removed"
    assert registry.snapshot().get("bob") is None


def test_the_uid_of_an_old_record_is_taken_from_its_profile(
    paths: Paths, registry: Registry
) -> None:
    born = create(paths, registry, spec(), RULES)
    raw = json.loads(paths.registry.read_text(encoding="utf-8"))
    del raw["peers"][0]["uid"]
    paths.registry.write_text(json.dumps(raw), encoding="utf-8")
    world = World(registry)
    remove(paths, registry, "bob", world.rules())
    assert world.done[-1][0] == born.profile.uid


def test_a_peer_without_folder_can_be_removed(
    paths: Paths, registry: Registry, tmp_path: Path
) -> None:
    raw = {"version": 2, "peers": [{"personality": "bob", "runtime": "claude", "cwd": "/gone"}]}
    paths.root.mkdir(mode=0o700)
    paths.registry.write_text(json.dumps(raw), encoding="utf-8")
    world = World(registry)
    assert remove(paths, registry, "bob", world.rules()).action == "removed"
    assert world.done[-1] == ("", "bob", False)


def test_a_peer_whose_record_is_corrupt_is_not_called_absent(
    paths: Paths, registry: Registry
) -> None:
    paths.root.mkdir(mode=0o700)
    paths.registry.write_text('{"version": 2, "peers": [{"personality": "bob"}]}', encoding="utf-8")
    with pytest.raises(RegistryError, match="corrupted") as caught:
        remove(paths, registry, "bob", World(registry).rules())
    assert "verify --fix" in caught.value.hint


@pytest.mark.requirement("registry:remove:namesake")
def test_a_namesake_inherits_nothing(paths: Paths, registry: Registry) -> None:
    first = create(paths, registry, spec(), RULES)
    put_state(paths, "claude-bob.stopped")
    remove(paths, registry, "bob", World(registry).rules())
    for entry in sorted(paths.peer_home("bob").rglob("*"), reverse=True):
        entry.rmdir() if entry.is_dir() else entry.unlink()
    second = create(paths, registry, spec(), RULES)
    assert second.profile.uid != first.profile.uid
    assert state(paths) == []
