from __future__ import annotations

import json
import tomllib
from pathlib import Path

import msgspec
import pytest

from iapeer.registry.memory.lever import turn

from .conftest import Host, Write


def states(host: Host, *, on: bool) -> dict[str, str]:
    return {done.runtime: done.state for done in turn(host.paths, host.record, on=on)}


@pytest.mark.requirement("memory:native:off", "memory:native:outcomes")
def test_off_is_one_key_in_each_agents_own_file(host: Host) -> None:
    assert states(host, on=False) == {"claude": "written", "codex": "written"}
    assert json.loads((host.cwd / ".claude/settings.json").read_bytes()) == {
        "autoMemoryEnabled": False
    }
    text = (host.cwd / ".codex/config.toml").read_text(encoding="utf-8")
    assert text == "[features]\nmemories = false\n"
    assert states(host, on=False) == {"claude": "already", "codex": "already"}


@pytest.mark.requirement("memory:native:on")
def test_on_takes_the_key_out_and_what_was_made_for_it(host: Host) -> None:
    before = sorted(host.cwd.rglob("*"))
    states(host, on=False)
    assert states(host, on=True) == {"claude": "written", "codex": "written"}
    assert sorted(host.cwd.rglob("*")) == before
    assert list(host.paths.changes.iterdir()) == []
    assert states(host, on=True) == {"claude": "already", "codex": "already"}


@pytest.mark.requirement("memory:native:on")
def test_what_the_user_made_stays(host: Host, write: Write) -> None:
    write(host.cwd / ".claude/settings.json", "{}")
    write(host.cwd / ".codex/config.toml", "")
    states(host, on=False)
    states(host, on=True)
    assert (host.cwd / ".claude/settings.json").read_text(encoding="utf-8") == "{}"
    assert (host.cwd / ".codex/config.toml").read_text(encoding="utf-8") == ""


def test_a_folder_with_new_content_stays(host: Host, write: Write) -> None:
    states(host, on=False)
    write(host.cwd / ".claude/skills/x.md", "hi")
    states(host, on=True)
    assert not (host.cwd / ".claude/settings.json").exists()
    assert (host.cwd / ".claude/skills/x.md").exists()


@pytest.mark.requirement("memory:native:foreign-keys")
def test_foreign_keys_survive_both_ways(host: Host, write: Write) -> None:
    settings = write(host.cwd / ".claude/settings.json", '{"hooks": {"Stop": []}, "model": "x"}')
    config = write(host.cwd / ".codex/config.toml", "# c\n[features]\nx = true\n[mcp_servers.a]\n")
    states(host, on=False)
    assert json.loads(settings.read_bytes())["hooks"] == {"Stop": []}
    assert tomllib.loads(config.read_text(encoding="utf-8"))["features"] == {
        "x": True,
        "memories": False,
    }
    states(host, on=True)
    assert json.loads(settings.read_bytes()) == {"hooks": {"Stop": []}, "model": "x"}
    assert config.read_text(encoding="utf-8") == "# c\n[features]\nx = true\n[mcp_servers.a]\n"


@pytest.mark.requirement("memory:native:refused")
def test_settings_that_are_no_object_fail_and_are_untouched(host: Host, write: Write) -> None:
    settings = write(host.cwd / ".claude/settings.json", "[1]")
    done = turn(host.paths, host.record, on=False)
    assert [(d.runtime, d.state) for d in done] == [("claude", "failed"), ("codex", "written")]
    assert "not a JSON object" in done[0].reason
    assert settings.read_text(encoding="utf-8") == "[1]"


@pytest.mark.requirement("memory:native:outcomes")
def test_a_peer_without_such_a_runtime_is_skipped_and_a_lost_folder_fails(host: Host) -> None:
    demo = msgspec.structs.replace(host.record, runtimes=("demo",))
    assert [done.state for done in turn(host.paths, demo, on=False)] == ["skipped"]
    gone = msgspec.structs.replace(host.record, cwd=str(host.cwd / "no"))
    assert [done.state for done in turn(host.paths, gone, on=False)] == ["failed", "failed"]
    assert not Path(gone.cwd).exists()
