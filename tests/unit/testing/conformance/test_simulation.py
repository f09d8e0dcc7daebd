"""What the simulated model is told to do with the tools a program offers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from iapeer.core.errors import InvalidInput
from iapeer.runtimes.catalog import SHIPPED, Catalog
from iapeer.testing.conformance import ProgramMissing, Subject
from iapeer.testing.conformance.simulation import rules, send, shell_call
from iapeer.testing.model_server import RecordedRequest

TEXT = {"type": "string"}


def request(*tools: Mapping[str, Any]) -> RecordedRequest:
    return RecordedRequest(
        number=1,
        method="POST",
        path="/v1/messages",
        query="",
        headers=(),
        body=json.dumps({"tools": tools, "messages": []}).encode(),
        protocol="messages",
    )


def schema(required: list[str], **properties: object) -> dict[str, object]:
    return {"type": "object", "properties": properties, "required": required}


@pytest.mark.parametrize(
    ("tool", "line"),
    [
        (
            {"name": "Bash", "input_schema": schema(["command"], command=TEXT)},
            'CALL Bash {"command": "ls"}',
        ),
        (
            {"type": "function", "name": "exec_command", "parameters": schema(["cmd"], cmd=TEXT)},
            'CALL exec_command {"cmd": "ls"}',
        ),
        (
            {
                "type": "function",
                "function": {
                    "name": "run",
                    "parameters": schema(
                        ["command", "bg"], command=TEXT, bg={"type": "boolean"}, dir=TEXT
                    ),
                },
            },
            'CALL run {"command": "ls", "bg": false}',
        ),
        ({"name": "read", "input_schema": schema(["path"], path=TEXT)}, None),
        ({"type": "web_search"}, None),
    ],
)
def test_the_tool_that_runs_commands_is_found_by_what_it_takes(
    tool: Mapping[str, Any], line: str | None
) -> None:
    other = {"name": "look", "input_schema": schema(["path"], path=TEXT)}
    assert shell_call(request(other, tool), "ls") == line


def test_a_tool_that_is_hidden_is_searched_for_first() -> None:
    ours = {"name": "mcp__iapeer__send_to_peer", "input_schema": schema([])}
    search = {"name": "tool_search", "input_schema": schema(["query"], query=TEXT)}
    assert send("dan", "hi") == "SEND dan hi"
    assert send("dan", "hi", request(search, ours)) == "SEND dan hi"
    found = 'FIND tool_search {"query": "send_to_peer"} AND SEND dan hi'
    assert send("dan", "hi", request(search)) == found


def test_each_line_is_for_one_rule() -> None:
    lines = [
        "SLOW 3",
        "SEND dan hi",
        'FIND tool_search {"query": "x"} AND SEND dan hi',
        'CALL Bash {"command": "ls"}',
        "APIERROR",
    ]
    for line in lines:
        text = f"<msg>words before\n{line}\nEND</msg>"
        assert sum(bool(re.search(rule.when, text)) for rule in rules((3, 30))) == 1


def test_a_program_is_looked_for_in_the_named_folder_first(tmp_path: Path) -> None:
    program = tmp_path / "claude"
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    spec = Catalog.load(SHIPPED).get("claude")
    assert Subject("claude", path=tmp_path).program(spec) == str(program)


def test_a_missing_program_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProgramMissing, match="no program 'codex' on PATH"):
        Subject("codex").program(Catalog.load(SHIPPED).get("codex"))


def test_a_service_has_no_program() -> None:
    with pytest.raises(InvalidInput, match="'api' is a service"):
        Subject("api").program(Catalog.load(SHIPPED).get("api"))


def test_what_the_caller_gives_comes_over_what_is_known() -> None:
    subject = Subject(
        "codex",
        variables={"X": "{model_url}/v1", "SIMULATOR_API_KEY": "mine"},
        home_files={"a/b.json": '{"url": "{model_url}"}'},
    )
    user = subject.user("http://h:1")
    assert user.variables["X"] == "http://h:1/v1"
    assert user.variables["SIMULATOR_API_KEY"] == "mine"
    assert user.files["a/b.json"] == '{"url": "http://h:1"}'
    assert ".codex/config.toml" in user.files
    assert subject.has_model
    assert not Subject("mytool").has_model
