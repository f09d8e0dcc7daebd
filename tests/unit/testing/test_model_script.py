"""A script file becomes rules, or an error that says what is wrong with it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from iapeer.core.errors import ConfigError
from iapeer.testing.model_server import (
    Call,
    Fail,
    Hold,
    Rule,
    Say,
    Script,
    Slow,
    load_script,
    parse_script,
)

FULL = r"""
default = "fine"
side = "T"
rules_without_tools = true
chunk_chars = 3

[[rule]]
when = '(?s)^tell (\w+): (.*)$'
times = 2
then = [
    { slow = 0.5 },
    { error = 429, retry_after = 1, times = 2, message = "later" },
    { hold = "/tmp/$1" },
    { say = "half" },
    { error = 529, mid_stream = true, times = 1 },
    { call = "send_to_peer", args = { to = "$1", message = "$2" } },
    { call = "$1", args = "$2" },
    { call = "list_peers" },
    { say = "sent" },
]

[[rule]]
when = "bad"
then = [{ error = 401 }]
"""


def test_a_script_says_everything_the_python_names_say() -> None:
    first = Rule(
        r"(?s)^tell (\w+): (.*)$",
        (
            Slow(0.5),
            Fail(status=429, retry_after=1, times=2, message="later"),
            Hold("/tmp/$1"),
            Say("half"),
            Fail(status=529, mid_stream=True, times=1),
            Call("send_to_peer", {"to": "$1", "message": "$2"}),
            Call("$1", "$2"),
            Call("list_peers"),
            Say("sent"),
        ),
        times=2,
    )
    assert parse_script(FULL) == Script(
        rules=(first, Rule("bad", (Fail(status=401),))),
        default="fine",
        side="T",
        rules_without_tools=True,
        chunk_chars=3,
    )


def test_an_empty_script_says_ok() -> None:
    assert parse_script("") == Script()
    assert Script().default == "ok"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("rule = 1", "rule"),
        ("[[rule]", "not a script"),
        ("rules = []", "rules"),
        ("chunk_chars = 0", "chunk_chars"),
        ("[[rule]]\nwhen = 'x'", "then"),
        ("[[rule]]\nwhen = 'x'\nthen = []", "no steps"),
        ("[[rule]]\nwhen = '('\nthen = [{say = 'a'}]", "rule '('"),
        ("[[rule]]\nwhen = 'x'\ntimes = 0\nthen = [{say = 'a'}]", "1 or more"),
        ("[[rule]]\nwhen = 'x'\nthen = [{}]", "one of say, slow, hold, call, error"),
        ("[[rule]]\nwhen = 'x'\nthen = [{say = 'a', slow = 1}]", "one of say"),
        ("[[rule]]\nwhen = 'x'\nthen = [{say = 'a', times = 1}]", "say takes no times"),
        ("[[rule]]\nwhen = 'x'\nthen = [{call = 'a', mid_stream = false}]", "takes no mid_stream"),
        ("[[rule]]\nwhen = 'x'\nthen = [{shout = 'a'}]", "shout"),
        ("[[rule]]\nwhen = 'x'\nthen = [{error = 200}]", "no error status"),
        ("[[rule]]\nwhen = 'x'\nthen = [{error = 0}]", "no error status"),
        ("[[rule]]\nwhen = 'x'\nthen = [{error = 500, times = 0}]", "1 or more"),
        ("[[rule]]\nwhen = 'x'\nthen = [{error = 500, retry_after = -1}]", "negative"),
        ("[[rule]]\nwhen = 'x'\nthen = [{slow = -1}, {say = 'a'}]", "0 to 600"),
        ("[[rule]]\nwhen = 'x'\nthen = [{slow = nan}, {say = 'a'}]", "0 to 600"),
        ("[[rule]]\nwhen = 'x'\nthen = [{error = 500}, {say = 'a'}]", "never taken"),
        ("[[rule]]\nwhen = 'x'\nthen = [{say = 'a'}, {error = 500}]", "mid_stream"),
    ],
)
def test_a_script_that_can_not_be_followed_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(problem)):
        parse_script(text)


def test_a_file_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_bytes(b"\xff")
    (tmp_path / "good.toml").write_text('default = "Ж"', encoding="utf-8")
    for name in ("absent.toml", "bad.toml"):
        with pytest.raises(ConfigError, match=name):
            load_script(tmp_path / name)
    assert load_script(tmp_path / "good.toml").default == "Ж"
