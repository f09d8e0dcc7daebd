from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iapeer.core.errors import SessionGone, TmuxError
from iapeer.sessions.tmux import command
from iapeer.sessions.tmux.config import config_text
from iapeer.sessions.tmux.control import ControlLost, _read_blocks
from iapeer.sessions.tmux.facts import read_facts

WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)


@given(WORDS)
def test_a_quoted_word_is_one_line_of_harmless_ascii(word: str) -> None:
    quoted = command.quote(word)
    assert quoted.isascii()
    assert quoted.isprintable()
    inner = quoted[1:-1] if quoted.startswith('"') else quoted
    assert not set('"$~`') & set(inner)
    if quoted.startswith('"'):
        raw = inner.encode().decode("unicode_escape").encode("latin-1")
        assert raw.decode() == word
    else:
        assert quoted == word


def test_a_final_semicolon_is_no_separator() -> None:
    assert command.arguments([["a", "b;", ";", "\\;", "c"], ["d"]]) == [
        "a", "b\\;", "\\;", "\\\\;", "c", ";", "d",
    ]  # fmt: skip
    assert command.line([["a", ";"], ["b", "c d"]]) == 'a ";" ; b "c d"'


def test_a_nul_and_too_long_a_request_are_refused() -> None:
    with pytest.raises(TmuxError, match="NUL"):
        command.quote("a\0b")
    with pytest.raises(TmuxError, match="too long"):
        command.check_length("x" * (command.COMMAND_MAX_BYTES + 1))
    command.check_length("x" * command.COMMAND_MAX_BYTES)


@pytest.mark.requirement("names:socket:length")
def test_the_path_limit_counts_bytes() -> None:
    command.check_socket(Path("/" + "é" * 53))
    with pytest.raises(TmuxError, match="109 bytes"):
        command.check_socket(Path("/" + "é" * 54))


@pytest.mark.parametrize(
    ("text", "is_gone"),
    [
        ("no server running on /x", True),
        ("error connecting to /x (No such file or directory)", True),
        ("server exited unexpectedly", True),
        ("lost server", True),
        ("can't find session: x", True),
        ("can't find pane: x", True),
        ("no buffer b", False),
        ("", False),
    ],
)
def test_only_a_missing_thing_is_gone(text: str, is_gone: bool) -> None:
    assert isinstance(command.refusal(text), SessionGone) == is_gone


def test_blocks_of_a_reply_are_joined_and_notifications_dropped() -> None:
    reply = ["%begin 9 1 0", "%end 9 1 0", "%session-changed $0 a"]
    reply += ["%begin 9 2 1", "one", "%end 9 2 1", "%x", "%begin 9 3 1", "two", "", "%end 9 3 1"]
    assert _read_blocks(reply) == ["one", "two", ""]


def test_text_that_looks_like_guard_lines_stays_text() -> None:
    fake = ["%end 9 2 1", "%begin 9 3 1", "%error 9 3 1", "%error 9 2 1", "%exit"]
    assert _read_blocks(["%begin 9 2 1", *fake, "%end 9 2 1"]) == fake


def test_an_error_block_is_raised_and_a_broken_reply_is_lost() -> None:
    with pytest.raises(SessionGone, match="can't find session"):
        _read_blocks(["%begin 9 2 1", "can't find session: x", "%error 9 2 1"])
    with pytest.raises(ControlLost):
        _read_blocks(["%begin 9 2 1", "half"])


def test_signals_are_read_as_number_or_name() -> None:
    def signal_of(text: str) -> int | None:
        return read_facts([f"1|$0|%0|2|1||{text}|0"], "s").dead_signal

    assert [signal_of(text) for text in ("9", "kill", "SIGKILL", "", "what")] == [
        9,
        9,
        9,
        None,
        None,
    ]


@pytest.mark.parametrize("lines", [[], [""], ["|||||||"], ["no"]])
def test_an_answer_without_a_pane_is_gone(lines: list[str]) -> None:
    with pytest.raises(SessionGone):
        read_facts(lines, "s")


def test_people_are_counted_without_control_clients() -> None:
    assert read_facts(["1|$0|%0|2|0|||1", "0", "1", "0", ""], "s").humans == 3


def test_hooks_are_quoted_into_the_configuration() -> None:
    text = config_text({"pane-died": "run-shell 'echo \"$HOME\"'"})
    last = text.splitlines()[-1]
    assert last == "set-hook -g pane-died \"run-shell 'echo \\042\\044HOME\\042'\""
