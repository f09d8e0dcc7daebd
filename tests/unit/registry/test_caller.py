from __future__ import annotations

import json
from pathlib import Path

import pytest

from iapeer.core.errors import CallerError
from iapeer.registry.caller import caller_for_process, resolve_caller
from iapeer.registry.index import PeerUpdate, Registry, RegistrySnapshot
from iapeer.storage.paths import Paths, profile_path


@pytest.fixture
def homes(tmp_path: Path) -> dict[str, Path]:
    """Folders with a profile each; all but `stray` are in the index."""
    made = {}
    for name in ("ann", "bob", "stray"):
        cwd = tmp_path / name
        profile_path(cwd).parent.mkdir(parents=True)
        raw = {"personality": name, "default_runtime": "claude", "runtimes": ["claude", "codex"]}
        profile_path(cwd).write_text(json.dumps(raw), encoding="utf-8")
        made[name] = cwd
    return made


@pytest.fixture
def snapshot(tmp_path: Path, homes: dict[str, Path]) -> RegistrySnapshot:
    registry = Registry(Paths(tmp_path / "root"), sandbox=True)
    for name in ("ann", "bob"):
        registry.upsert(
            PeerUpdate(
                personality=name, runtime="claude", runtimes=("codex",), cwd=str(homes[name])
            )
        )
    return registry.snapshot()


# --- per request --------------------------------------------------------------------------------


@pytest.mark.requirement("caller:request:registry")
def test_each_declared_runtime_is_an_address_of_its_own(
    snapshot: RegistrySnapshot, homes: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(homes["stray"])
    monkeypatch.setenv("PEER_IDENTITY", "claude-bob")
    for address in ("claude-ann", "codex-ann"):
        caller = resolve_caller(address, snapshot)
        assert caller.address == address
        assert caller.record is snapshot.require("ann")


@pytest.mark.requirement(
    "caller:request:missing",
    "caller:request:bad-name",
    "caller:request:unknown",
    "caller:request:undeclared",
)
@pytest.mark.parametrize(
    ("address", "words"),
    [
        (None, "missing or malformed x-iapeer-identity header"),
        ("", "missing or malformed x-iapeer-identity header"),
        ("claude", "missing or malformed x-iapeer-identity header"),
        ("-ann", "missing or malformed x-iapeer-identity header"),
        ("claude-", "missing or malformed x-iapeer-identity header"),
        ("Claude-ann", "missing or malformed x-iapeer-identity header"),
        ("claude-Ann", "invalid caller personality"),
        ("claude-ann\n", "invalid caller personality"),
        ("claude-carl", "unknown caller .*not registered"),
        ("goose-ann", "is not declared for caller"),
    ],
)
def test_a_bad_caller_is_refused_with_the_contracts_words(
    snapshot: RegistrySnapshot, address: str | None, words: str
) -> None:
    with pytest.raises(CallerError, match=words):
        resolve_caller(address, snapshot)


# --- per process --------------------------------------------------------------------------------


@pytest.mark.requirement("caller:process:order")
def test_from_wins_over_environment_and_folder(
    snapshot: RegistrySnapshot, homes: dict[str, Path]
) -> None:
    environ = {"PEER_IDENTITY": "claude-bob"}
    caller = caller_for_process(environ, homes["bob"], snapshot, "codex-ann")
    assert caller.address == "codex-ann"


@pytest.mark.requirement("caller:process:bad-from")
@pytest.mark.parametrize(
    ("explicit", "words"),
    [
        ("", "invalid --from identity"),
        ("ann", "invalid --from identity"),
        ("claude-Ann", "invalid --from identity"),
        ("claude-carl", "unknown caller"),
        ("goose-ann", "is not declared for caller"),
    ],
)
def test_a_bad_from_is_refused_and_nothing_else_tried(
    snapshot: RegistrySnapshot, homes: dict[str, Path], explicit: str, words: str
) -> None:
    with pytest.raises(CallerError, match=words):
        caller_for_process({"PEER_IDENTITY": "claude-bob"}, homes["bob"], snapshot, explicit)


@pytest.mark.requirement("caller:process:order")
def test_the_sessions_identity_counts_wherever_the_process_went(
    snapshot: RegistrySnapshot, homes: dict[str, Path], tmp_path: Path
) -> None:
    for cwd in (homes["ann"], homes["bob"], homes["ann"] / "deep" / "below", tmp_path):
        caller = caller_for_process({"PEER_IDENTITY": "codex-ann"}, cwd, snapshot)
        assert caller.address == "codex-ann"


@pytest.mark.requirement("caller:process:order")
@pytest.mark.parametrize("identity", ["claude-carl", "goose-ann", "garbage", " "])
def test_an_identity_the_registry_does_not_know_gives_way_to_the_folder(
    snapshot: RegistrySnapshot, homes: dict[str, Path], identity: str
) -> None:
    caller = caller_for_process({"PEER_IDENTITY": identity}, homes["bob"], snapshot)
    assert caller.address == "claude-bob"


@pytest.mark.requirement("caller:process:order")
def test_the_folder_is_found_from_below(snapshot: RegistrySnapshot, homes: dict[str, Path]) -> None:
    assert caller_for_process({}, homes["bob"] / "a" / "b", snapshot).address == "claude-bob"


def test_nobody_is_an_error_with_a_hint_that_tells_of_the_identity_passed_over(
    snapshot: RegistrySnapshot, tmp_path: Path
) -> None:
    with pytest.raises(CallerError, match="no peer lives in") as caught:
        caller_for_process({"PEER_IDENTITY": "claude-carl"}, tmp_path, snapshot)
    assert "claude-carl" in caught.value.message
    assert "--from" in caught.value.hint


@pytest.mark.requirement("caller:process:copied-folder")
def test_a_folder_that_is_not_registered_speaks_for_nobody(
    snapshot: RegistrySnapshot, homes: dict[str, Path]
) -> None:
    with pytest.raises(CallerError, match="unknown caller 'stray'"):
        caller_for_process({}, homes["stray"], snapshot)


@pytest.mark.requirement("caller:process:copied-folder")
def test_a_copied_folder_speaks_for_nobody(
    snapshot: RegistrySnapshot, homes: dict[str, Path], tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    profile_path(copy).parent.mkdir(parents=True)
    profile_path(copy).write_bytes(profile_path(homes["ann"]).read_bytes())
    with pytest.raises(CallerError, match="unknown caller 'ann'"):
        caller_for_process({}, copy, snapshot)


def test_a_broken_profile_is_named_and_not_skipped(
    snapshot: RegistrySnapshot, homes: dict[str, Path]
) -> None:
    inner = homes["ann"] / "inner"
    profile_path(inner).parent.mkdir(parents=True)
    profile_path(inner).write_text("{", encoding="utf-8")
    with pytest.raises(CallerError, match="not valid JSON"):
        caller_for_process({}, inner, snapshot)


@pytest.mark.requirement("caller:process:personality")
@pytest.mark.parametrize(("stated", "passes"), [("BOB", True), ("ann", False)])
def test_the_stated_personality_must_be_the_folders(
    snapshot: RegistrySnapshot, homes: dict[str, Path], stated: str, passes: bool
) -> None:
    environ = {"PEER_PERSONALITY": stated}
    if passes:
        assert caller_for_process(environ, homes["bob"], snapshot).address == "claude-bob"
    else:
        with pytest.raises(CallerError, match="PEER_PERSONALITY"):
            caller_for_process(environ, homes["bob"], snapshot)
