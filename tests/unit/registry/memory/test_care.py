from __future__ import annotations

import json
import threading
import tomllib
from pathlib import Path

import msgspec
import pytest

from iapeer.registry.memory import command as running
from iapeer.registry.memory.care import Cared
from iapeer.registry.memory.changes import Changes, Entry, read_changes, update_changes
from iapeer.registry.memory.hooks import read_hooks, trust_hooks

from .conftest import Host, Write

ALL = ("claude", "codex", "demo")


@pytest.mark.requirement("memory:birth:empty")
def test_an_empty_slot_means_nothing_for_anybody(host: Host) -> None:
    before = sorted(host.home.rglob("*")) + sorted(host.paths.root.rglob("*"))
    care = host.care()
    assert care.born(host.record, ALL) == Cared()
    assert care.leaving(host.record) == Cared()
    assert sorted(host.home.rglob("*")) + sorted(host.paths.root.rglob("*")) == before
    assert host.logged == []


@pytest.mark.requirement("memory:birth:held", "memory:provision:process")
def test_a_birth_turns_native_memory_off_trusts_and_provisions_each_agent_once(host: Host) -> None:
    host.hold()
    cared = host.care(PEER_TOKEN="secret", IAPEER_BEARER_TOKEN="b", X="y").born(host.record, ALL)
    assert cared.warnings == ()
    assert host.calls == [
        f"{host.cwd}|claude-bob|birth|",
        f"{host.cwd}|codex-bob|birth|",
    ]
    assert host.given["X"] == "y"
    assert not {"PEER_TOKEN", "IAPEER_BEARER_TOKEN"} & host.given.keys()
    settings = json.loads((host.cwd / ".claude/settings.json").read_bytes())
    assert settings == {"autoMemoryEnabled": False}
    assert tomllib.loads(host.config.read_text(encoding="utf-8")) == {
        "projects": {str(host.cwd): {"trust_level": "trusted"}}
    }
    assert [(line["identity"], line["occasion"], line["state"]) for line in host.logged] == [
        ("claude-bob", "birth", "ok"),
        ("codex-bob", "birth", "ok"),
    ]
    assert list(host.logged[0]) == [
        "ev", "identity", "occasion", "state", "exit", "ms", "detail",
    ]  # fmt: skip
    assert "memory provision: codex ok" in cared.lines


def test_only_the_runtimes_that_are_new_are_cared_for(host: Host) -> None:
    host.hold()
    host.care().born(host.record, ("claude",))
    assert [call.split("|")[1] for call in host.calls] == ["claude-bob"]
    assert not host.config.exists()
    host.care().born(host.record, ("demo",))
    assert len(host.calls) == 1


def test_a_provider_without_commands_is_not_asked(host: Host) -> None:
    host.hold(provision=None, unprovision={"command": "relative", "args": []})
    assert host.care().born(host.record, ALL).warnings == ()
    host.care().leaving(host.record)
    assert host.calls == []


@pytest.mark.requirement("memory:birth:never-fails", "memory:provision:log")
def test_whatever_goes_wrong_is_a_loud_warning(
    host: Host, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(host.cwd / ".claude/settings.json", "[]")
    write(host.config, "broken =")
    host.hold("echo no vault >&2; exit 1")
    cared = host.care().born(host.record, ALL)
    assert len(cared.warnings) == 4
    assert "native memory of claude could not be turned off" in cared.warnings[0]
    assert "codex was not told to trust" in cared.warnings[1]
    assert cared.warnings[2] == "MEMORY PROVISION of claude: failed (exit 1): no vault"
    assert host.config.read_text(encoding="utf-8") == "broken ="
    assert host.logged[1] | {"ms": 0} == {
        "ev": "memory-provision",
        "identity": "codex-bob",
        "occasion": "birth",
        "state": "failed",
        "exit": 1,
        "ms": 0,
        "detail": "no vault",
    }
    host.hold(provision={"command": "/no/such/program", "args": []})
    assert "not-executable" in host.care().born(host.record, ALL).warnings[-1]


@pytest.mark.requirement("memory:trust:user")
def test_a_folder_the_user_does_not_trust_is_told_and_left(host: Host, write: Write) -> None:
    text = f'[projects."{host.cwd}"]\ntrust_level = "untrusted"\n'
    write(host.config, text)
    host.hold()
    (warning,) = host.care().born(host.record, ALL).warnings
    assert "says 'untrusted'" in warning
    assert host.config.read_text(encoding="utf-8") == text


@pytest.mark.requirement("memory:removal")
def test_a_removal_unprovisions_first_and_takes_back_what_codex_was_told(
    host: Host, write: Write
) -> None:
    before = '# mine\n[projects."/other"]\ntrust_level = "trusted"\n'
    write(host.config, before)
    host.hold()
    care = host.care(CODEX_HOME=str(host.config.parent))
    care.born(host.record, ALL)
    hooks_file = host.cwd / ".codex" / "hooks.json"
    hooks_file.write_text(
        '{"hooks": {"Stop": [{"hooks": [{"type": "command", "command": "x"}]}]}}', encoding="utf-8"
    )
    hooks = read_hooks(hooks_file)
    trust_hooks(host.config, hooks)
    noted = tuple(Entry(str(host.config), hook.key) for hook in hooks)
    update_changes(host.paths, host.record, lambda old: msgspec.structs.replace(old, hooks=noted))
    # The daemon that removes need not know of CODEX_HOME: what was changed is on record.
    cared = host.care().leaving(host.record)
    assert cared.warnings == ()
    assert host.calls[2:] == [f"{host.cwd}|claude-bob|remove|", f"{host.cwd}|codex-bob|remove|"]
    assert host.config.read_text(encoding="utf-8") == before
    assert [line.split(" ")[0:2] for line in cared.lines] == [
        ["memory", "unprovision:"],
        ["memory", "unprovision:"],
        ["codex", "trust"],
        ["codex", "hooks"],
    ]
    assert read_changes(host.paths, host.record) == Changes()
    assert [line["occasion"] for line in host.logged[2:]] == ["remove", "remove"]


@pytest.mark.requirement("memory:removal:user")
def test_trust_that_the_user_gave_stays(host: Host, write: Write) -> None:
    text = f'[projects."{host.cwd}"]\ntrust_level = "trusted"\n'
    write(host.config, text)
    host.hold()
    host.care().born(host.record, ALL)
    host.care().leaving(host.record)
    assert host.config.read_text(encoding="utf-8") == text


@pytest.mark.requirement("memory:birth:never-fails")
def test_a_removal_goes_on_when_the_provider_hangs_or_the_folder_is_gone(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.hold("exec sleep 300")
    stop = threading.Event()
    stop.set()
    cared = host.care().leaving(host.record, stop)
    assert [warning.split(": ")[1] for warning in cared.warnings] == ["timeout", "timeout"]
    host.hold()
    host.care().born(host.record, ("codex",))
    for path in sorted(host.cwd.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    host.cwd.rmdir()
    assert host.care().leaving(host.record).warnings == ()
    assert not host.config.exists()


@pytest.mark.requirement("memory:provision:limit")
def test_the_limit_is_two_minutes() -> None:
    assert running.LIMIT_S == 120
    assert running.Job(argv=(), cwd=Path("/"), environ={}).limit_s == 120


def test_a_record_of_changes_that_can_not_be_read_says_nothing(host: Host) -> None:
    update_changes(host.paths, host.record, lambda old: msgspec.structs.replace(old, made=("/x",)))
    (file,) = host.paths.changes.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_text("{", encoding="utf-8")
    assert read_changes(host.paths, host.record) == Changes()
    assert host.care().leaving(host.record) == Cared()
