"""What a program finds when it starts."""

from __future__ import annotations

import json
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iapeer.core.errors import LaunchFailed
from iapeer.runtimes.spec import File
from iapeer.sessions.files import fill, merged, write_files

VALUES = {"cwd": "/p", "state_dir": "", "system_prompt": "", "identity": "demo-ann"}


def _write(tmp_path: Path, *, isolated: bool = True, **file: Any) -> Path:
    values = {**VALUES, "state_dir": str(tmp_path / "state")}
    made = File(**{"path": "{state_dir}/f.json", "content": {}, **file})
    write_files((made,), values, isolated=isolated)
    return Path(made.path.replace("{state_dir}", values["state_dir"]))


@pytest.mark.requirement("launch:files", "mcp:wiring")
def test_every_string_is_filled_in_and_the_file_is_private(tmp_path: Path) -> None:
    content = {"{identity}": ["{cwd}/a", {"deep": "{{x}}"}, 3, True]}
    path = _write(tmp_path, content=content)
    assert json.loads(path.read_text("utf-8")) == {"demo-ann": ["/p/a", {"deep": "{x}"}, 3, True]}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_what_has_an_empty_condition_is_left_out(tmp_path: Path) -> None:
    content = {"a": "{?system_prompt}x", "b": ["{?system_prompt}x", "y"], "{?system_prompt}c": 1}
    path = _write(tmp_path, content=content)
    assert json.loads(path.read_text("utf-8")) == {"b": ["y"]}


@pytest.mark.requirement("launch:files")
def test_a_file_of_an_isolated_home_is_written_there_only(tmp_path: Path) -> None:
    assert not _write(tmp_path, isolated=False, when="isolated").exists()
    assert _write(tmp_path, isolated=True, when="isolated").exists()


@pytest.mark.parametrize("form", ["json", "toml"])
def test_merging_keeps_what_the_program_wrote(tmp_path: Path, form: str) -> None:
    path = tmp_path / "state" / "f.json"
    path.parent.mkdir()
    before = (
        '{"own": 1, "t": {"a": 1, "b": 2}}' if form == "json" else "own = 1\nt = {a = 1, b = 2}"
    )
    path.write_text(before, "utf-8")
    _write(tmp_path, content={"t": {"b": 3, "c": "{cwd}"}}, merge=True, format=form)
    text = path.read_text("utf-8")
    found = json.loads(text) if form == "json" else tomllib.loads(text)
    assert found == {"own": 1, "t": {"a": 1, "b": 3, "c": "/p"}}


@pytest.mark.parametrize("before", ["[1]", "{", "\x00", '"text"'])
def test_a_file_that_makes_no_sense_is_left_alone_and_named(tmp_path: Path, before: str) -> None:
    path = tmp_path / "state" / "f.json"
    path.parent.mkdir()
    path.write_text(before, "utf-8")
    with pytest.raises(LaunchFailed, match=r"f\.json") as caught:
        _write(tmp_path, content={"a": 1}, merge=True)
    assert caught.value.code == "config"
    assert path.read_text("utf-8") == before


def test_without_merge_the_file_is_ours(tmp_path: Path) -> None:
    path = tmp_path / "state" / "f.json"
    path.parent.mkdir()
    path.write_text('{"own": 1}', "utf-8")
    _write(tmp_path, content={"a": 1})
    assert json.loads(path.read_text("utf-8")) == {"a": 1}


_TABLES = st.recursive(
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=4),
    lambda inner: st.dictionaries(st.text(max_size=3), inner | st.integers(), max_size=4),
    max_leaves=8,
)


@given(_TABLES, _TABLES)
def test_a_merge_holds_all_keys_and_the_upper_values(below: Any, above: Any) -> None:
    result = merged(below, above)
    assert set(result) == set(below) | set(above)
    assert merged(result, above) == result
    for key, value in above.items():
        if not isinstance(value, dict):
            assert result[key] == value


@given(st.text(), st.text())
def test_a_value_can_not_become_structure(name: str, value: str) -> None:
    """Whatever a folder is called, the file stays one string at that place."""
    values = {**VALUES, "cwd": value, "identity": name}
    assert fill({"k": "{cwd}{identity}"}, values) == {"k": value + name}
