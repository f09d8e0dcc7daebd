from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from iapeer.core.errors import InvalidInput, LockBusy, PeerExists, PeerNotFound, RegistryError
from iapeer.core.identity import Intelligence
from iapeer.registry import index
from iapeer.registry.index import PeerUpdate, Registry, same_folder
from iapeer.storage.locks import hold
from iapeer.storage.paths import Paths

Fill = Callable[..., None]


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "root")


@pytest.fixture
def registry(paths: Paths) -> Registry:
    return Registry(paths, sandbox=True)


@pytest.fixture
def fill(paths: Paths) -> Fill:
    """Write the registry file by hand."""

    def write(*peers: object, **top: object) -> None:
        paths.root.mkdir(mode=0o700, exist_ok=True)
        body = {"version": 2, "peers": list(peers), **top}
        paths.registry.write_text(json.dumps(body), encoding="utf-8")

    return write


def peer(name: str, **fields: object) -> dict[str, object]:
    runtime = fields.get("default_runtime", "claude")
    base: dict[str, object] = {
        "personality": name,
        "default_runtime": runtime,
        "runtime": runtime,
        "runtimes": [runtime],
        "description": f"I am {name}",
        "intelligence": "artificial",
        "cwd": f"/peers/{name}",
    }
    return base | fields


def update(name: str = "bob", **fields: Any) -> PeerUpdate:
    return PeerUpdate(**{"personality": name, "runtime": "claude", "cwd": "/peers/bob", **fields})


def on_disk(paths: Paths) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(paths.registry.read_text(encoding="utf-8"))
    return content


# --- reading ------------------------------------------------------------------------------------


@pytest.mark.requirement("registry:read:absent")
def test_an_absent_file_is_an_empty_index(registry: Registry) -> None:
    assert registry.snapshot().records == ()


@pytest.mark.requirement("registry:read:no-registry")
@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "{}", '{"peers": {}}', "\ufeff{}"])
def test_what_is_no_registry_is_refused_with_the_contracts_words(
    registry: Registry, paths: Paths, text: str
) -> None:
    paths.root.mkdir(mode=0o700)
    paths.registry.write_text(text, encoding="utf-8")
    words = "peers-profiles.json corrupted, restore from backup or delete to start fresh"
    with pytest.raises(RegistryError, match=words):
        registry.snapshot()
    with pytest.raises(RegistryError, match=words):
        registry.upsert(update())
    assert paths.registry.read_text(encoding="utf-8") == text


BAD_RECORDS = {
    "not an object": "x",
    "bad name": peer("Bad Name"),
    "bad runtime": peer("bad", default_runtime="a-b"),
    "blank cwd": peer("bad", cwd=" "),
    "unknown intelligence": peer("bad", intelligence="alien"),
    "interfaces no object": peer("bad", interfaces=[]),
    "duplicate": peer("ann", cwd="/elsewhere"),
}


@pytest.mark.requirement("registry:read:bad-record")
@pytest.mark.parametrize("bad", BAD_RECORDS.values(), ids=BAD_RECORDS.keys())
def test_a_corrupt_record_is_put_aside_and_stops_writers_only(
    registry: Registry, paths: Paths, fill: Fill, bad: object
) -> None:
    fill(peer("ann"), bad, peer("zoe"))
    before = paths.registry.read_bytes()
    snapshot = registry.snapshot()
    assert [record.personality for record in snapshot] == ["ann", "zoe"]
    assert snapshot.require("ann").cwd == "/peers/ann"
    (problem,) = snapshot.problems
    assert problem.message.startswith("peers-profiles.json corrupted:")
    assert problem.raw == bad
    writes: tuple[Callable[[], object], ...] = (
        lambda: registry.upsert(update()),
        lambda: registry.remove("ann"),
        lambda: registry.replace([]),
    )
    for write in writes:
        with pytest.raises(RegistryError, match=r"corrupted: .*nothing written") as caught:
            write()
        assert "verify --fix" in caught.value.hint
    assert paths.registry.read_bytes() == before


@pytest.mark.requirement("registry:read:bad-record")
def test_a_peer_put_aside_is_not_found_with_the_reason(registry: Registry, fill: Fill) -> None:
    fill(peer("bad", intelligence="alien"))
    with pytest.raises(PeerNotFound, match=r"'bad' is not registered: .*alien"):
        registry.snapshot().require("bad")
    with pytest.raises(PeerNotFound, match="'carl' is not registered"):
        registry.snapshot().require("carl")


def test_readers_may_fall_back_on_the_last_good_snapshot(
    registry: Registry, paths: Paths, fill: Fill
) -> None:
    fill(peer("ann"))
    assert registry.snapshot(allow_stale=True).problems == ()
    paths.registry.write_text("{", encoding="utf-8")
    stale = registry.snapshot(allow_stale=True)
    assert stale.get("ann") is not None
    assert "corrupted" in stale.problems[0].message
    with pytest.raises(RegistryError):
        registry.snapshot()
    with pytest.raises(RegistryError):
        Registry(paths, sandbox=True).snapshot(allow_stale=True)
    fill(peer("zoe"))
    assert registry.snapshot(allow_stale=True).problems == ()


@pytest.mark.requirement("registry:read:mirror", "registry:description:limit")
def test_default_runtime_wins_over_the_mirror_and_long_descriptions_are_cut(
    registry: Registry, fill: Fill
) -> None:
    fill(
        peer("ann", runtime="codex", description="x" * 451),
        peer("bob", default_runtime=None, runtime="codex", runtimes=["codex"]),
        peer("eva", description="x" * 450),
    )
    ann, bob, eva = registry.snapshot()
    assert (ann.default_runtime, len(ann.description)) == ("claude", 450)
    assert bob.default_runtime == "codex"
    assert len(eva.description) == 450


@pytest.mark.requirement("names:intelligence:legacy")
@pytest.mark.parametrize(("word", "nature"), [("human", "natural"), ("scripted", "absent")])
def test_legacy_words_are_read(registry: Registry, fill: Fill, word: str, nature: str) -> None:
    fill(peer("ann", intelligence=word))
    assert registry.snapshot().require("ann").intelligence.value == nature


@pytest.mark.requirement("registry:read:older")
@pytest.mark.parametrize("version", [1, None, "2", True])
def test_an_older_or_missing_version_is_migrated_by_the_next_write(
    registry: Registry, paths: Paths, fill: Fill, version: object
) -> None:
    fill(peer("ann"), version=version)
    assert registry.snapshot().warnings == ()
    registry.upsert(update())
    assert on_disk(paths)["version"] == 2


@pytest.mark.requirement("registry:read:newer", "registry:write:newer")
def test_a_newer_version_is_read_with_a_warning_and_never_written(
    registry: Registry, paths: Paths, fill: Fill
) -> None:
    fill(peer("ann"), version=3, invention={"x": 1})
    before = paths.registry.read_bytes()
    snapshot = registry.snapshot()
    assert snapshot.get("ann") is not None
    assert "version 3" in snapshot.warnings[0]
    with pytest.raises(RegistryError, match="version 3") as caught:
        registry.upsert(update())
    assert caught.value.hint == "update iapeer"
    assert paths.registry.read_bytes() == before


@pytest.mark.requirement("registry:write:newer")
def test_a_newer_version_is_not_healed_either(registry: Registry, paths: Paths, fill: Fill) -> None:
    fill(peer("bad", cwd=""), version=3)
    before = paths.registry.read_bytes()
    with pytest.raises(RegistryError, match="version 3"):
        registry.heal(lambda _: None, "2026-11-22")
    assert paths.registry.read_bytes() == before
    assert not paths.quarantine.exists()


def test_a_snapshot_is_cached_until_the_file_changes(
    registry: Registry, paths: Paths, fill: Fill
) -> None:
    fill(peer("ann"))
    old = paths.registry.stat().st_mtime - 10
    os.utime(paths.registry, (old, old))
    first = registry.snapshot()
    assert registry.snapshot() is first
    fill(peer("ann"), peer("bob"))
    assert registry.snapshot().get("bob") is not None


def test_a_change_within_the_same_tick_is_not_missed(
    registry: Registry, paths: Paths, fill: Fill
) -> None:
    fill(peer("ann"))
    info = paths.registry.stat()
    assert registry.snapshot().get("ann") is not None
    # Same size, same inode, same time stamp: only the racy rule can tell.
    fill(peer("eva"))
    os.utime(paths.registry, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert paths.registry.stat().st_ino == info.st_ino
    assert registry.snapshot().get("eva") is not None


def test_a_file_that_can_not_be_read_is_a_registry_error(registry: Registry, paths: Paths) -> None:
    paths.registry.mkdir(parents=True)
    with pytest.raises(RegistryError, match=str(paths.registry)):
        registry.snapshot()


# --- writing ------------------------------------------------------------------------------------


@pytest.mark.requirement("registry:file:shape")
def test_the_file_has_the_contracts_shape_order_and_mode(registry: Registry, paths: Paths) -> None:
    registry.upsert(update("zoe", cwd="/z", runtimes=("codex",), description=" last "))
    registry.upsert(update("ann", cwd="/a", interfaces={"telegram": {"bot": "x"}}))
    keys = [
        "personality",
        "default_runtime",
        "runtime",
        "runtimes",
        "description",
        "intelligence",
        "cwd",
    ]
    peers = on_disk(paths)["peers"]
    assert [list(entry) for entry in peers] == [[*keys, "interfaces"], keys]
    assert peers[1]["runtime"] == peers[1]["default_runtime"] == "claude"
    assert peers[1]["description"] == "last"
    text = paths.registry.read_text(encoding="utf-8")
    assert text.startswith('{\n  "version": 2,\n  "peers": [\n    {\n')
    assert text.endswith("}\n")
    assert stat.S_IMODE(paths.registry.stat().st_mode) == 0o600
    assert stat.S_IMODE(paths.registry_lock.stat().st_mode) == 0o600
    assert stat.S_IMODE(paths.root.stat().st_mode) == 0o700


@pytest.mark.requirement("registry:upsert:merge")
def test_an_upsert_merges_with_what_is_there(registry: Registry, paths: Paths) -> None:
    registry.upsert(
        update(
            description="keeper",
            intelligence="natural",
            interfaces={"telegram": {}},
            runtimes=("codex",),
            uid="a" * 32,
        )
    )
    merged = registry.upsert(update(runtime="telegram", cwd="/moved"))
    assert merged.default_runtime == "telegram"
    assert merged.runtimes == ("telegram", "claude", "codex")
    assert (merged.cwd, merged.description, merged.uid) == ("/moved", "keeper", "a" * 32)
    assert merged.intelligence is Intelligence.NATURAL
    assert merged.interfaces == {"telegram": {}}
    assert registry.snapshot().require("bob").runtimes == merged.runtimes
    assert len(on_disk(paths)["peers"]) == 1


@pytest.mark.requirement("registry:upsert:merge")
def test_explicit_values_override(registry: Registry) -> None:
    registry.upsert(update(description="one", intelligence="natural"))
    record = registry.upsert(update(description="two", intelligence="absent", interfaces={}))
    assert (record.description, record.intelligence.value, record.interfaces) == (
        "two",
        "absent",
        {},
    )


@pytest.mark.requirement("names:intelligence:default")
@pytest.mark.parametrize(
    ("runtime", "nature"), [("claude", "artificial"), ("telegram", "natural"), ("cron", "absent")]
)
def test_a_new_peer_gets_its_runtimes_nature(registry: Registry, runtime: str, nature: str) -> None:
    assert registry.upsert(update(runtime=runtime)).intelligence.value == nature


@pytest.mark.requirement("names:intelligence:verbatim")
@pytest.mark.parametrize(
    ("stated", "written"), [("", "human"), ("natural", "human"), ("absent", "absent")]
)
def test_a_legacy_word_stays_on_disk_while_it_means_the_same(
    registry: Registry, paths: Paths, fill: Fill, stated: str, written: str
) -> None:
    fill(peer("bob", intelligence="human"))
    registry.upsert(update(intelligence=stated, description="new"))
    (entry,) = on_disk(paths)["peers"]
    assert entry["intelligence"] == written
    assert not {key for key in entry if "raw" in key}


@pytest.mark.requirement("registry:write:foreign")
def test_a_write_of_one_peer_keeps_the_words_and_foreign_keys_of_all(
    registry: Registry, paths: Paths, fill: Fill
) -> None:
    others = [peer("ann", intelligence="human", nickname="a"), peer("eva", intelligence="scripted")]
    fill(*others, peer("bob"), added_by="someone")
    registry.upsert(update(description="changed"))
    registry.remove("bob")
    assert on_disk(paths) == {"version": 2, "peers": others, "added_by": "someone"}


@pytest.mark.requirement("names:intelligence:unknown")
def test_garbage_as_intelligence_is_refused_naming_the_vocabulary(
    registry: Registry, paths: Paths
) -> None:
    with pytest.raises(InvalidInput) as caught:
        registry.upsert(update(intelligence="alien"))
    assert "artificial|natural|absent" in str(caught.value)
    assert not paths.registry.exists()


@pytest.mark.requirement("registry:upsert:checked")
@pytest.mark.parametrize(
    "fields",
    [{"name": "Bob"}, {"runtime": "a-b"}, {"runtimes": ("x y",)}, {"cwd": "relative"}, {"cwd": ""}],
)
def test_an_update_that_would_corrupt_the_file_is_refused(
    registry: Registry, paths: Paths, fields: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput):
        registry.upsert(update(**fields))
    assert not paths.registry.exists()


def test_remove_returns_the_record_and_none_the_second_time(registry: Registry) -> None:
    registry.upsert(update())
    removed = registry.remove("bob")
    assert removed is not None
    assert removed.personality == "bob"
    assert registry.remove("bob") is None
    assert registry.snapshot().records == ()


@pytest.mark.requirement("registry:fix:reindex")
def test_replace_narrows_runtimes(registry: Registry) -> None:
    record = registry.upsert(update(runtimes=("codex",)))
    registry.replace([replace(record, runtimes=("claude",))])
    assert registry.snapshot().require("bob").runtimes == ("claude",)


def test_register_refuses_a_name_of_another_folder(registry: Registry, tmp_path: Path) -> None:
    record = registry.upsert(update(cwd=str(tmp_path)))
    link = tmp_path.with_name("link")
    link.symlink_to(tmp_path)
    registry.register(replace(record, cwd=str(link)))
    with pytest.raises(PeerExists, match="already exists in"):
        registry.register(replace(record, cwd="/elsewhere"))


def test_a_write_that_changes_nothing_leaves_the_file_alone(
    registry: Registry, paths: Paths
) -> None:
    registry.upsert(update())
    before = paths.registry.stat()
    registry.upsert(update())
    assert paths.registry.stat() == before


def test_an_error_inside_a_change_leaves_the_file_alone(registry: Registry, paths: Paths) -> None:
    registry.upsert(update())
    before = paths.registry.read_bytes()

    def change(records: dict[str, Any]) -> None:
        records.clear()
        raise KeyError

    with pytest.raises(KeyError):
        registry.change(change)
    assert paths.registry.read_bytes() == before
    registry.upsert(update("ann"))


@pytest.mark.requirement("registry:write:lock")
def test_a_writer_waits_for_the_lock_and_names_its_holder(
    registry: Registry, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.upsert(update())
    monkeypatch.setattr(index, "LOCK_TIMEOUT_S", 0.05)
    with hold(paths.registry_lock, 1, "it"), pytest.raises(LockBusy, match=f"pid {os.getpid()}"):
        registry.remove("bob")
    assert registry.remove("bob") is not None


@pytest.mark.requirement("registry:write:parallel")
def test_threads_that_share_a_registry_lose_no_update(registry: Registry) -> None:
    names = [f"peer{number}" for number in range(8)]
    threads = [
        threading.Thread(target=registry.upsert, args=(update(name, cwd=f"/{name}"),))
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [record.personality for record in registry.snapshot()] == names


@pytest.mark.requirement("registry:sandbox")
@pytest.mark.parametrize(
    ("sandbox", "root", "allowed"),
    [(True, ".iapeer", False), (True, "other", True), (False, ".iapeer", True)],
)
def test_a_test_never_writes_the_real_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sandbox: bool, root: str, allowed: bool
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    registry = Registry(Paths(tmp_path / root), sandbox=sandbox)
    if allowed:
        registry.upsert(update())
        assert registry.snapshot().get("bob") is not None
    else:
        with pytest.raises(RegistryError, match="real registry"):
            registry.upsert(update())
        assert not (tmp_path / root).exists()


@pytest.mark.requirement("registry:sandbox")
def test_a_link_to_the_real_root_is_the_real_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".iapeer").mkdir(mode=0o700)
    (tmp_path / "alias").symlink_to(tmp_path / ".iapeer")
    with pytest.raises(RegistryError, match="real registry"):
        Registry(Paths(tmp_path / "alias"), sandbox=True).upsert(update())


@pytest.mark.requirement("profile:folder:same")
def test_folders_are_compared_by_real_path(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    assert same_folder(str(tmp_path / "link" / "x"), str(tmp_path / "x"))
    assert not same_folder(str(tmp_path / "x"), str(tmp_path / "y"))
