from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iapeer.registry.memory.slot import (
    Command,
    heartbeat_age_s,
    read_slot,
    slot_facts,
    slot_line,
)

SLOT = {"provider": "mem", "package": "@x/mem", "version": "1.2"}
NOW = 1_790_000_000.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory-provider.json"


def put(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


@pytest.mark.requirement("memory:slot:read")
def test_a_provider_holds_the_slot_and_unknown_keys_are_passed_over(path: Path) -> None:
    command = {"command": "/bin/p", "args": ["a", "{cwd}"]}
    put(path, {**SLOT, "provider": " mem ", "schema": 2, "plugin": {}, "provision": command})
    slot = read_slot(path)
    assert slot is not None
    assert (slot.provider, slot.package, slot.version) == ("mem", "@x/mem", "1.2")
    assert slot.registered_at == ""
    assert slot.provision == Command("/bin/p", ("a", "{cwd}"))
    assert slot.unprovision is None


@pytest.mark.requirement("memory:slot:empty")
@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"provider": "x"}', json.dumps({**SLOT, "provider": "  "}),
     json.dumps({**SLOT, "version": 3}), '{"provider":"\ud800"}'.encode("utf-8", "surrogatepass")],
)  # fmt: skip
def test_an_invalid_file_is_an_empty_slot(path: Path, text: str | bytes) -> None:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert read_slot(path) is None


@pytest.mark.requirement("memory:slot:empty")
def test_no_file_a_folder_a_pipe_and_a_loop_are_an_empty_slot(path: Path) -> None:
    assert read_slot(path) is None
    path.mkdir()
    assert read_slot(path) is None
    path.rmdir()
    os.mkfifo(path)
    assert read_slot(path) is None
    path.unlink()
    path.symlink_to(path)
    assert read_slot(path) is None


@pytest.mark.requirement("memory:slot:read")
@pytest.mark.parametrize(
    "command",
    [
        "/bin/p",
        {"args": []},
        {"command": "p", "args": []},
        {"command": "/bin/p", "args": "x"},
        {"command": "/bin/p", "args": [1]},
        {"command": "/bin/p\0", "args": []},
    ],
)
def test_a_command_that_is_not_absolute_or_has_other_arguments_counts_as_absent(
    path: Path, command: object
) -> None:
    put(path, {**SLOT, "provision": command, "unprovision": {"command": "/bin/u", "args": []}})
    slot = read_slot(path)
    assert slot is not None
    assert slot.provision is None
    assert slot.unprovision == Command("/bin/u")


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: json.dumps(text).encode()))
def test_reading_never_fails(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("s") / "memory-provider.json"
    path.write_bytes(data)
    assert read_slot(path) is None


@pytest.mark.requirement("memory:slot:placeholders")
def test_placeholders_are_replaced_inside_arguments_once_and_others_stay() -> None:
    command = Command("/bin/{cwd}", ("--at={cwd}", "{runtime}:{personality}{x}", "$(id)", ""))
    values = {"cwd": "/a {runtime}", "runtime": "codex", "personality": "bob"}
    assert command.argv(values) == [
        "/bin/{cwd}",
        "--at=/a {runtime}",
        "codex:bob{x}",
        "$(id)",
        "",
    ]


@pytest.mark.requirement("memory:status")
def test_the_heartbeat_is_told_in_each_of_its_states(path: Path, tmp_path: Path) -> None:
    assert slot_line(None, NOW) == "memory: none"
    assert slot_facts(None, NOW) is None
    put(path, SLOT)
    assert slot_line(read_slot(path), NOW) == "memory: mem 1.2"
    assert slot_facts(read_slot(path), NOW) == SLOT
    beat = tmp_path / "beat"
    put(path, {**SLOT, "heartbeat": str(beat)})
    slot = read_slot(path)
    assert slot is not None
    assert slot_line(slot, NOW) == "memory: mem 1.2 (daemon not running — no heartbeat file)"
    assert slot_facts(slot, NOW) == {**SLOT, "heartbeat_age_s": None}
    beat.touch()
    os.utime(beat, (NOW - 75.5, NOW - 75.5))
    assert slot_line(slot, NOW) == "memory: mem 1.2 (heartbeat 75s ago)"
    assert slot_facts(slot, NOW) == {**SLOT, "heartbeat_age_s": 75}
    assert heartbeat_age_s(slot, NOW - 900) == 0


def test_a_heartbeat_without_a_full_path_is_none(path: Path) -> None:
    put(path, {**SLOT, "heartbeat": "beat"})
    assert slot_line(read_slot(path), NOW) == "memory: mem 1.2"
