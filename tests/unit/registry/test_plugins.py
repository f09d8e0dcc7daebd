"""The agent programs are scripts that answer as the real ones were seen to; no network here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iapeer.core.errors import InvalidInput
from iapeer.registry.plugins import Place, Plugin, SetUp, enable_plugin, parse_plugin, set_up

PLUGIN = Plugin("notes", "agfpd")
_PROGRAM = """#!/bin/sh
cd "{here}" || exit 9
echo "$*" >> calls
case "$*" in
{cases}
*) echo "unexpected: $*" >&2; exit 2;;
esac
"""


class Agent:
    """A program that notes its words and answers by them; `state` is a file it may change."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.here = folder / f"{name}-state"
        self.here.mkdir(parents=True)
        self._program = folder / "bin" / name
        self._program.parent.mkdir(exist_ok=True)

    def does(self, cases: str) -> None:
        self._program.write_text(_PROGRAM.format(here=self.here, cases=cases), encoding="utf-8")
        self._program.chmod(0o700)

    def lists(self, name: str, value: Any) -> None:
        (self.here / name).write_text(json.dumps(value), encoding="utf-8")

    @property
    def calls(self) -> list[str]:
        return (self.here / "calls").read_text(encoding="utf-8").splitlines()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    cwd = tmp_path / "bob"
    cwd.mkdir()
    environ = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "HOME": str(tmp_path), "PEER_TOKEN": "s"}
    return Place(personality="bob", cwd=cwd, environ=environ)


Make = Callable[[str], Agent]


@pytest.fixture
def agent(tmp_path: Path) -> Make:
    return lambda name: Agent(tmp_path, name)


def entry(cwd: Path | str | None, *, enabled: bool, folder: str = "/x") -> dict[str, Any]:
    found = {"id": PLUGIN.id, "scope": "project", "enabled": enabled, "installPath": folder}
    return found if cwd is None else {**found, "projectPath": str(cwd)}


_LIST = "'plugin list --json') cat now;;\n"
_INSTALL = f"'plugin install {PLUGIN.id} --scope project') cp later now;;\n"
_ENABLE = f"'plugin enable {PLUGIN.id} --scope project') cp later now;;\n"
_UPDATE = "'plugin marketplace update agfpd') touch fresh;;\n"


@pytest.mark.requirement("memory:enable:name")
def test_a_plug_in_is_named_with_or_without_its_marketplace() -> None:
    assert parse_plugin("notes") == PLUGIN
    assert parse_plugin("notes@other").id == "notes@other"
    for bad in ("", "-x", "a b", "a@", "@b", "a@b@c", "a/../b", "a@-b", "--json"):
        with pytest.raises(InvalidInput):
            parse_plugin(bad)


@pytest.mark.requirement("memory:enable:claude")
def test_claude_installs_for_the_peers_folder_and_is_asked_again(place: Place, agent: Make) -> None:
    claude = agent("claude")
    # What belongs to another project is listed too, as disabled.
    claude.lists("now", [entry("/other", enabled=False), {"id": "x@agfpd", "enabled": True}])
    claude.lists("later", [entry("/other", enabled=False), entry(place.cwd, enabled=True)])
    claude.does(_LIST + _INSTALL)
    done = enable_plugin(PLUGIN, place, "claude", "claude")
    assert (done.state, done.folder) == ("installed", "/x")
    again = enable_plugin(PLUGIN, place, "claude", "claude")
    assert again.state == "already-enabled"
    assert claude.calls == [
        "plugin list --json",
        f"plugin install {PLUGIN.id} --scope project",
        "plugin list --json",
        "plugin list --json",
    ]


@pytest.mark.requirement("memory:enable:claude")
@pytest.mark.parametrize("installed", [True, False])
def test_claude_enables_only_what_is_disabled(place: Place, agent: Make, installed: bool) -> None:
    claude = agent("claude")
    claude.lists("now", [entry(place.cwd, enabled=False)] if installed else [])
    claude.lists("later", [entry(place.cwd, enabled=False)])
    claude.does(_LIST + _INSTALL + _ENABLE)
    done = enable_plugin(PLUGIN, place, "claude", "claude")
    assert done.state == ("enabled" if installed else "installed")
    assert claude.calls[-1] == f"plugin enable {PLUGIN.id} --scope project"


@pytest.mark.requirement("memory:enable:retry")
def test_after_a_refusal_the_marketplace_is_refreshed_and_it_is_tried_once_more(
    place: Place, agent: Make
) -> None:
    claude = agent("claude")
    claude.lists("now", [])
    claude.lists("later", [entry(None, enabled=True)])
    stale = f"'plugin install {PLUGIN.id} --scope project') [ -e fresh ] && cp later now;;\n"
    claude.does(_LIST + stale + _UPDATE)
    assert enable_plugin(PLUGIN, place, "claude", "claude").state == "installed"
    assert claude.calls.count("plugin marketplace update agfpd") == 1
    refused = f"'plugin install {PLUGIN.id} --scope project') echo no such >&2; exit 1;;\n"
    claude.lists("now", [])
    claude.does(_LIST + refused + _UPDATE)
    done = enable_plugin(PLUGIN, place, "claude", "claude")
    assert (done.state, done.folder) == ("failed", "")
    assert done.detail.endswith("failed (exit 1): no such")
    assert claude.calls.count("plugin marketplace update agfpd") == 2


@pytest.mark.requirement("memory:enable:codex")
@pytest.mark.parametrize(
    ("before", "state"),
    [([], "installed"), ([False], "enabled"), ([True], "already-enabled")],
)
def test_codex_adds_it_for_the_account(
    place: Place, agent: Make, before: list[bool], state: str
) -> None:
    codex = agent("codex")

    def listed(*enabled: bool) -> dict[str, Any]:
        return {
            "installed": [
                {"pluginId": PLUGIN.id, "enabled": each, "version": "0.1"} for each in enabled
            ]
        }

    codex.lists("now", listed(*before))
    codex.lists("later", listed(True))
    codex.does(f"{_LIST}'plugin add {PLUGIN.id}') cp later now;;\n")
    done = enable_plugin(PLUGIN, place, "codex", "codex")
    assert done.state == state
    home = place.environ["HOME"]
    assert done.folder == f"{home}/.codex/plugins/cache/agfpd/notes/0.1"
    assert any("plugin add" in call for call in codex.calls) is (state != "already-enabled")


@pytest.mark.requirement("memory:enable:retry")
def test_codex_is_refreshed_by_its_own_word_and_bad_answers_are_failures(
    place: Place, agent: Make
) -> None:
    codex = agent("codex")
    codex.does("'plugin list --json') echo no json;;\n'plugin marketplace upgrade agfpd') ;;\n")
    done = enable_plugin(PLUGIN, place, "codex", "codex")
    assert (done.state, done.detail) == ("failed", "plugin list --json: the answer is no JSON")
    assert "plugin marketplace upgrade agfpd" in codex.calls
    codex.lists("now", {"installed": [3, {"pluginId": 4}], "available": []})
    codex.does(f"{_LIST}'plugin add {PLUGIN.id}') ;;\n'plugin marketplace upgrade agfpd') ;;\n")
    assert "is not enabled" in enable_plugin(PLUGIN, place, "codex", "codex").detail


@pytest.mark.requirement("memory:enable:states")
def test_a_program_that_is_not_there_is_told(place: Place) -> None:
    done = enable_plugin(PLUGIN, place, "claude", "no-such-claude")
    assert done.state == "runtime-missing"
    assert "no-such-claude" in done.detail


def plugin_folder(folder: Path, content: object, script: str = "") -> Path:
    (folder / "iapeer.json").parent.mkdir(parents=True, exist_ok=True)
    (folder / "iapeer.json").write_text(json.dumps(content), encoding="utf-8")
    if script:
        program = folder / "my setup"
        program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        program.chmod(0o700)
    return folder


@pytest.mark.requirement("memory:enable:setup")
@pytest.mark.parametrize(
    ("setup", "words"),
    [("my setup", ""), ({"command": "my setup", "args": ["a b", "$c"]}, "a b|$c")],
)
def test_the_set_up_runs_in_the_peers_folder_and_knows_the_peer(
    place: Place, tmp_path: Path, setup: object, words: str
) -> None:
    script = (
        'IFS="|"; printf "%s\\n" "$*" "$IAPEER_PEER_PERSONALITY" "$IAPEER_PEER_CWD" "$PEER_TOKEN"'
        ' "$(pwd)" > out'
    )
    folder = plugin_folder(tmp_path / "p", {"setup": setup}, script)
    assert set_up(folder, place) == SetUp("called")
    lines = (place.cwd / "out").read_text(encoding="utf-8").splitlines()
    assert lines == [words, "bob", str(place.cwd), "", str(place.cwd)]


@pytest.mark.requirement("memory:enable:setup")
@pytest.mark.parametrize(
    ("content", "state"),
    [
        ({}, "absent"),
        ({"setup": None}, "absent"),
        ([], "failed"),
        ({"setup": 3}, "failed"),
        ({"setup": ""}, "failed"),
        ({"setup": {"command": "true", "args": "x"}}, "failed"),
        ({"setup": {"command": "true", "args": [1]}}, "failed"),
        ({"setup": "true; touch out"}, "failed"),
        ({"setup": "false"}, "failed"),
        ({"setup": "true"}, "called"),
    ],
)
def test_a_set_up_is_one_program_or_a_command_with_arguments(
    place: Place, tmp_path: Path, content: object, state: str
) -> None:
    assert set_up(plugin_folder(tmp_path / "p", content), place).state == state
    assert not (place.cwd / "out").exists()


def test_no_file_is_no_set_up(place: Place, tmp_path: Path) -> None:
    assert set_up(tmp_path, place) == SetUp("absent")
