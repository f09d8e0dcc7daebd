from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from iapeer.core.errors import (
    InvalidInput,
    LockBusy,
    PeerExists,
    ProfileError,
    RegistryError,
    StorageError,
)
from iapeer.core.identity import Intelligence
from iapeer.core.profile import Profile, ProfileChange
from iapeer.registry import profiles
from iapeer.registry.index import PeerUpdate, Registry
from iapeer.registry.profiles import (
    BirthSpec,
    discover_runtimes,
    ensure_profile,
    ensure_uid,
    find_profile,
    read_profile,
    reindex_peer,
    update_profile,
    write_profile,
)
from iapeer.storage.jsonfile import MISSING
from iapeer.storage.locks import hold
from iapeer.storage.paths import Paths, profile_path

LEGACY = {
    "personality": "bob",
    "runtime": "claude",
    "intelligence": "human",
    "initial_prompt": "hello",
    "wake_policy": "ephemeral",
    "interfaces": {"telegram": {"bot": "x"}},
    "notifier": {"rules": [1]},
}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(Paths(tmp_path / "root"), sandbox=True)


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    folder = tmp_path / "bob"
    folder.mkdir()
    return folder


def put(cwd: Path, content: object) -> None:
    profile_path(cwd).parent.mkdir(exist_ok=True)
    profile_path(cwd).write_text(
        content if isinstance(content, str) else json.dumps(content), encoding="utf-8"
    )


def on_disk(cwd: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(profile_path(cwd).read_text(encoding="utf-8"))
    return content


def birth(cwd: Path, runtime: str = "claude", **fields: Any) -> BirthSpec:
    return BirthSpec(cwd=cwd, runtime=runtime, **fields)


# --- reading and writing ------------------------------------------------------------------------


@pytest.mark.requirement("profile:read:errors")
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not valid JSON"),
        ([], "not an object"),
        ({"runtime": "claude"}, "personality"),
        ({"personality": " ", "runtime": "claude"}, "personality"),
        ({"personality": "bob", "runtime": "a-b"}, "invalid runtime"),
        ({"personality": "bob", "runtime": "claude", "interfaces": []}, "interfaces"),
        ({"personality": "bob", "runtime": "claude", "intelligence": "alien"}, "intelligence"),
    ],
)
def test_a_profile_that_is_none_is_an_error_that_names_the_file(
    cwd: Path, content: object, words: str
) -> None:
    put(cwd, content)
    with pytest.raises(ProfileError, match=words) as caught:
        read_profile(cwd)
    assert str(profile_path(cwd)) in caught.value.message
    with pytest.raises(ProfileError):
        find_profile(cwd)


def test_a_missing_profile_has_its_own_code(cwd: Path) -> None:
    with pytest.raises(ProfileError) as caught:
        read_profile(cwd)
    assert caught.value.code == MISSING
    assert find_profile(cwd) is None
    with pytest.raises(ProfileError, match="does not exist"):
        write_profile(cwd, ProfileChange(description="x"))
    assert not profile_path(cwd).parent.exists()


@pytest.mark.requirement("profile:write:merge")
def test_a_write_keeps_what_it_does_not_know_and_adds_both_runtime_keys_and_a_uid(
    cwd: Path,
) -> None:
    put(cwd, LEGACY)
    written = write_profile(cwd, ProfileChange(description="new"))
    disk = on_disk(cwd)
    uid = disk.pop("uid")
    assert len(uid) == 32
    assert written.uid == uid
    assert disk == LEGACY | {
        "default_runtime": "claude",
        "runtimes": ["claude"],
        "description": "new",
    }
    assert read_profile(cwd).intelligence is Intelligence.NATURAL
    assert stat.S_IMODE(profile_path(cwd).stat().st_mode) == 0o600
    assert profile_path(cwd).read_text(encoding="utf-8").endswith("}\n")


@pytest.mark.requirement("profile:write:empty-keeps")
def test_empty_values_keep_and_the_uid_never_changes(cwd: Path) -> None:
    put(cwd, LEGACY | {"description": "old", "uid": "a" * 32})
    write_profile(cwd, ProfileChange(initial_prompt="  "))
    profile = read_profile(cwd)
    assert (profile.description, profile.initial_prompt) == ("old", "hello")
    assert profile.uid == "a" * 32


def test_a_write_that_changes_nothing_leaves_the_file_as_its_author_laid_it_out(cwd: Path) -> None:
    text = '{"personality":"bob","default_runtime":"claude","runtime":"claude",'
    text += f'"runtimes":["claude"],"uid":"{"a" * 32}"}}'
    put(cwd, text)
    write_profile(cwd, ProfileChange())
    assert profile_path(cwd).read_text(encoding="utf-8") == text


def test_writers_of_one_profile_wait_for_each_other(
    cwd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(cwd, LEGACY)
    write_profile(cwd, ProfileChange())
    monkeypatch.setattr(profiles, "LOCK_TIMEOUT_S", 0.05)
    lock = cwd / ".iapeer" / "state" / "peer-profile.json.lock"
    with hold(lock, 1, "it"), pytest.raises(LockBusy, match="profile"):
        write_profile(cwd, ProfileChange(description="x"))


def test_an_edit_that_fails_leaves_the_file(cwd: Path) -> None:
    put(cwd, LEGACY)
    with pytest.raises(InvalidInput):
        write_profile(cwd, ProfileChange(intelligence="alien"))

    def edit(_: Profile) -> Profile:
        raise KeyError

    with pytest.raises(KeyError):
        update_profile(cwd, edit)
    assert on_disk(cwd) == LEGACY


# --- birth --------------------------------------------------------------------------------------


@pytest.mark.requirement("profile:birth:folder-name")
def test_a_new_peer_is_named_after_its_folder_and_stands_in_profile_and_index(
    registry: Registry, tmp_path: Path
) -> None:
    cwd = tmp_path / "Café №2"
    (cwd / ".codex").mkdir(parents=True)
    (cwd / ".iapeer" / "runtimes" / "goose").mkdir(parents=True)
    (cwd / ".iapeer" / "runtimes" / "Not-A-Runtime").mkdir()
    born = ensure_profile(registry, birth(cwd, description="makes coffee"))
    assert born.created
    profile = read_profile(cwd)
    assert (profile.personality, profile.runtimes) == ("cafe-no-2", ("claude", "codex", "goose"))
    assert profile.intelligence is Intelligence.ARTIFICIAL
    assert on_disk(cwd)["runtime"] == "claude"
    record = registry.snapshot().require("cafe-no-2")
    assert (record.cwd, record.uid, record.runtimes) == (str(cwd), profile.uid, profile.runtimes)
    assert born.record.to_json() == record.to_json()


@pytest.mark.requirement("profile:uid")
def test_two_births_have_two_uids(registry: Registry, tmp_path: Path) -> None:
    uids = set()
    for name in ("ann", "bob"):
        (tmp_path / name).mkdir()
        uids.add(ensure_profile(registry, birth(tmp_path / name)).profile.uid)
    assert len(uids) == 2


@pytest.mark.requirement("profile:birth:again")
def test_birth_is_idempotent(registry: Registry, cwd: Path) -> None:
    first = ensure_profile(registry, birth(cwd, description="x"))
    before = profile_path(cwd).read_bytes(), registry.paths.registry.read_bytes()
    second = ensure_profile(registry, birth(cwd))
    assert not second.created
    assert second.profile.uid == first.profile.uid
    assert (profile_path(cwd).read_bytes(), registry.paths.registry.read_bytes()) == before


@pytest.mark.requirement("profile:birth:again")
def test_another_runtime_is_added_and_the_default_stays_in_profile_and_index(
    registry: Registry, cwd: Path
) -> None:
    ensure_profile(registry, birth(cwd, "claude"))
    ensure_profile(registry, birth(cwd, "codex"))
    profile, record = read_profile(cwd), registry.snapshot().require("bob")
    assert (profile.default_runtime, profile.runtimes) == ("claude", ("claude", "codex"))
    assert (record.default_runtime, record.runtimes) == ("claude", ("claude", "codex"))


@pytest.mark.requirement("profile:birth:name-taken")
def test_a_name_taken_by_another_folder_is_refused_and_nothing_is_left(
    registry: Registry, cwd: Path, tmp_path: Path
) -> None:
    ensure_profile(registry, birth(cwd))
    other = tmp_path / "elsewhere" / "bob"
    other.mkdir(parents=True)
    called: list[Profile] = []
    with pytest.raises(PeerExists, match="already exists") as caught:
        ensure_profile(registry, birth(other), called.append)
    assert called == []
    assert "rename this folder" in caught.value.hint
    assert list(other.iterdir()) == []


@pytest.mark.requirement("profile:birth:folder-name")
@pytest.mark.parametrize("explicit", ["bob", "Bob", "BOB!"])
def test_an_explicit_name_that_agrees_with_the_folder_passes(
    registry: Registry, cwd: Path, explicit: str
) -> None:
    ensure_profile(registry, birth(cwd, personality=explicit, env_personality=explicit))


@pytest.mark.requirement("profile:birth:folder-name", "profile:birth:environment")
@pytest.mark.parametrize("existing", [True, False])
@pytest.mark.parametrize("field", ["personality", "env_personality"])
def test_a_stated_name_that_differs_is_refused_for_new_and_present_peers(
    registry: Registry, cwd: Path, field: str, existing: bool
) -> None:
    if existing:
        ensure_profile(registry, birth(cwd))
    with pytest.raises((InvalidInput, PeerExists), match="bob"):
        ensure_profile(registry, birth(cwd, **{field: "carl"}))
    assert profile_path(cwd).exists() is existing


@pytest.mark.requirement("names:normalize:not-mended")
@pytest.mark.parametrize("name", ["42", "---", "iapeer", "IaPeer"])
def test_a_folder_whose_name_is_no_name_or_reserved_is_refused(
    registry: Registry, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(InvalidInput):
        ensure_profile(registry, birth(tmp_path / name))
    assert list((tmp_path / name).iterdir()) == []


def test_an_invalid_runtime_is_refused(registry: Registry, cwd: Path) -> None:
    with pytest.raises(InvalidInput, match="invalid runtime"):
        ensure_profile(registry, birth(cwd, "a-b"))


@pytest.mark.requirement("profile:birth:whole")
def test_what_refuses_before_the_write_leaves_no_half_made_peer(
    registry: Registry, cwd: Path
) -> None:
    seen = []

    def refuse(profile: Profile) -> None:
        seen.append((profile.personality, profile_path(cwd).exists()))
        raise StorageError("foreign unit")

    with pytest.raises(StorageError, match="foreign unit"):
        ensure_profile(registry, birth(cwd, "telegram"), refuse)
    assert seen == [("bob", False)]
    assert list(cwd.iterdir()) == []
    assert registry.snapshot().records == ()


@pytest.mark.requirement("profile:birth:infra-nature")
def test_an_infra_peer_made_again_gets_its_runtimes_nature(registry: Registry, cwd: Path) -> None:
    put(cwd, {"personality": "bob", "default_runtime": "telegram", "intelligence": "artificial"})
    born = ensure_profile(registry, birth(cwd, "telegram"))
    assert born.profile.intelligence is Intelligence.NATURAL
    assert registry.snapshot().require("bob").intelligence is Intelligence.NATURAL


def test_an_agent_that_gets_an_infra_runtime_keeps_its_nature(
    registry: Registry, cwd: Path
) -> None:
    ensure_profile(registry, birth(cwd))
    ensure_profile(registry, birth(cwd, "telegram"))
    assert read_profile(cwd).intelligence is Intelligence.ARTIFICIAL


@pytest.mark.requirement("profile:birth:whole")
@pytest.mark.parametrize("existing", [True, False])
def test_profile_and_index_change_together_or_not_at_all(
    registry: Registry, cwd: Path, existing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if existing:
        put(cwd, LEGACY)

    def fail(*_: object) -> None:
        raise RegistryError("disk full")

    monkeypatch.setattr(registry, "_write", fail)
    with pytest.raises(RegistryError, match="disk full"):
        ensure_profile(registry, birth(cwd, "codex"))
    if existing:
        assert on_disk(cwd) == LEGACY
    else:
        assert not profile_path(cwd).exists()


@pytest.mark.requirement("profile:uid")
def test_a_copied_folder_does_not_bring_the_originals_uid(
    registry: Registry, cwd: Path, tmp_path: Path
) -> None:
    original = ensure_profile(registry, birth(cwd)).profile
    copy = tmp_path / "carl"
    copy.mkdir()
    put(copy, on_disk(cwd))
    with pytest.raises(PeerExists):
        ensure_profile(registry, birth(copy))
    put(copy, on_disk(cwd) | {"personality": "carl"})
    assert ensure_profile(registry, birth(copy)).profile.uid != original.uid
    assert read_profile(cwd).uid == original.uid


@pytest.mark.requirement("registry:description:limit")
def test_a_description_that_others_will_see_cut_warns(registry: Registry, cwd: Path) -> None:
    assert ensure_profile(registry, birth(cwd, description="x" * 450)).warnings == ()
    (warning,) = ensure_profile(registry, birth(cwd, description="x" * 451)).warnings
    assert "451" in warning
    assert len(read_profile(cwd).description) == 451


def test_a_checked_out_folder_with_a_wider_mode_is_no_obstacle(
    registry: Registry, cwd: Path
) -> None:
    (cwd / ".iapeer").mkdir()
    (cwd / ".iapeer").chmod(0o775)
    ensure_profile(registry, birth(cwd))
    assert read_profile(cwd).personality == "bob"


# --- index from profile -------------------------------------------------------------------------


def test_a_reindex_replaces_by_the_projection_and_keeps_the_indexs_word(
    registry: Registry, cwd: Path
) -> None:
    registry.upsert(
        PeerUpdate(
            personality="bob",
            runtime="codex",
            runtimes=("claude",),
            cwd=str(cwd),
            intelligence="human",
        )
    )
    put(cwd, LEGACY | {"intelligence": "natural"})
    record = reindex_peer(registry, cwd)
    assert record.runtimes == ("claude",)
    assert record.raw_intelligence == "human"


def test_a_record_without_uid_gets_that_of_its_profile(registry: Registry, cwd: Path) -> None:
    put(cwd, LEGACY)
    record = registry.upsert(PeerUpdate(personality="bob", runtime="claude", cwd=str(cwd)))
    assert record.uid == ""
    with_uid = ensure_uid(registry, record)
    assert with_uid.uid == read_profile(cwd).uid != ""
    assert ensure_uid(registry, with_uid) is with_uid


@pytest.mark.requirement("profile:birth:discovery")
def test_runtimes_are_discovered_from_folders_only(cwd: Path) -> None:
    (cwd / ".claude").write_text("a file", encoding="utf-8")
    (cwd / ".codex").mkdir()
    assert discover_runtimes(cwd) == ("codex",)
