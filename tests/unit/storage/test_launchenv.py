from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iapeer.core.errors import StorageError
from iapeer.storage.launchenv import LaunchEnv, parse_launch_env, read_launch_env

keys = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,10}", fullmatch=True).filter(
    lambda key: key != "PEER_START_ARGS"
)
values = st.text(st.characters(codec="utf-8", exclude_characters="\0\n")).map(str.strip)


@pytest.mark.requirement("storage:launch-env:lines")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("A=1", ("A", "1")),
        ("export A=1", ("A", "1")),
        ("export\tA=1", ("A", "1")),
        ("  A=1  ", ("A", "1")),
        ("A=1\r", ("A", "1")),
        ("A=", ("A", "")),
        ("A='one two'", ("A", "one two")),
        ('A="one two"', ("A", "one two")),
        ("A=\"'nested'\"", ("A", "'nested'")),
        ("A='mixed\"", ("A", "'mixed\"")),
        ("A='", ("A", "'")),
        ("A=$HOME/`x`\\n", ("A", "$HOME/`x`\\n")),
        ("A=b=c", ("A", "b=c")),
        ("A=1 # no comment", ("A", "1 # no comment")),
    ],
)
def test_an_assignment(line: str, expected: tuple[str, str]) -> None:
    assert parse_launch_env(line) == LaunchEnv((expected,))


@pytest.mark.requirement("storage:launch-env:lines")
@pytest.mark.parametrize(
    "line", ["", "   ", "# A=1", "  # A=1", "A", "1A=1", "A B=1", "=1", "A-B=1", "A=x\0y"]
)
def test_what_is_no_assignment_is_ignored(line: str) -> None:
    assert parse_launch_env(f"{line}\nB=2") == LaunchEnv((("B", "2"),))


@pytest.mark.requirement("storage:launch-env:start-args")
def test_start_args_are_split_and_leave_the_environment() -> None:
    parsed = parse_launch_env('A=1\nPEER_START_ARGS="--model  x --fast"\n')
    assert parsed == LaunchEnv((("A", "1"),), ("--model", "x", "--fast"))


@pytest.mark.requirement("storage:launch-env:start-args")
@pytest.mark.parametrize("text", ["PEER_START_ARGS=", 'PEER_START_ARGS="  "', ""])
def test_empty_start_args_are_none(text: str) -> None:
    assert parse_launch_env(text).start_args == ()


def test_the_last_assignment_wins() -> None:
    assert parse_launch_env("A=1\nA=2").variables == (("A", "2"),)


@given(st.dictionaries(keys, values), st.booleans())
def test_quoted_assignments_come_back_as_they_were(wanted: dict[str, str], export: bool) -> None:
    prefix = "export " if export else ""
    text = "\n".join(f'{prefix}{key}="{value}"' for key, value in wanted.items())
    assert dict(parse_launch_env(text).variables) == wanted


@given(st.text())
def test_any_text_gives_variables_a_process_can_have(text: str) -> None:
    for key, value in parse_launch_env(text).variables:
        assert key.isascii()
        assert not {"\0", "="} & set(key)
        assert not {"\0", "\n"} & set(value)


@pytest.mark.requirement("storage:launch-env:missing")
def test_a_missing_file_is_empty(tmp_path: Path) -> None:
    assert read_launch_env(tmp_path / "launch.env") == LaunchEnv()


def test_bytes_that_are_no_utf8_are_kept(tmp_path: Path) -> None:
    (tmp_path / "launch.env").write_bytes(b"A=\xff\n")
    ((_, value),) = read_launch_env(tmp_path / "launch.env").variables
    assert value.encode("utf-8", "surrogateescape") == b"\xff"


def test_a_file_that_can_not_be_read_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=str(tmp_path)):
        read_launch_env(tmp_path)
