from __future__ import annotations

import argparse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iapeer.cli import grammar
from iapeer.cli.verb import Verb
from iapeer.cli.verbs import BY_NAME
from iapeer.core.errors import UsageError

SEND = BY_NAME["send"]
REMOVE = BY_NAME["remove"]


def send(*tokens: str) -> grammar.Call:
    call = grammar.parse(SEND, tokens)
    assert call is not None
    return call


@pytest.mark.requirement("cli:flags:value")
def test_an_option_takes_the_next_token_or_what_follows_its_equals_sign() -> None:
    assert send("bob", "--message", "hi").get("message") == "hi"
    assert send("bob", "--message=hi").get("message") == "hi"
    assert send("bob", "--message=a=b").get("message") == "a=b"


@pytest.mark.requirement("cli:flags:value")
def test_an_empty_value_is_given_with_an_equals_sign_or_as_an_empty_token() -> None:
    assert send("bob", "--topic=").get("topic") == ""
    assert send("bob", "--topic", "").get("topic") == ""
    assert send("bob").get("topic") is None


@pytest.mark.requirement("cli:flags:boolean")
def test_a_boolean_option_does_not_swallow_the_word_after_it() -> None:
    call = grammar.parse(REMOVE, ["--force", "bob"])
    assert call is not None
    assert call.has("force")
    assert call.need("peer") == "bob"


@pytest.mark.requirement("cli:flags:value")
@pytest.mark.parametrize("value", ["--json", "--force is a flag", "--", "--x=y"])
def test_a_token_that_begins_with_two_hyphens_is_never_taken_for_a_value(value: str) -> None:
    with pytest.raises(UsageError, match="--message needs a value"):
        grammar.parse(SEND, ["bob", "--message", value])
    assert send("bob", f"--message={value}").get("message") == value


@pytest.mark.parametrize("value", ["-", "-5", "-h", "-rw-r--r--"])
def test_a_value_may_begin_with_one_hyphen(value: str) -> None:
    assert send("bob", "--message", value).get("message") == value


@pytest.mark.requirement("cli:help:anywhere")
@pytest.mark.parametrize("verb", BY_NAME.values(), ids=list(BY_NAME))
@pytest.mark.parametrize("ask", ["--help", "-h"])
def test_help_wins_over_everything_else_on_the_line(verb: Verb, ask: str) -> None:
    assert grammar.parse(verb, [ask]) is None
    assert grammar.parse(verb, ["--no-such-option", "a", "b", "c", "d", ask]) is None


@pytest.mark.requirement("cli:help:value")
def test_help_is_a_token_of_its_own_and_not_a_value_or_a_word_after_the_options() -> None:
    assert send("bob", "--message=--help").get("message") == "--help"
    assert send("bob", "--", "--help").get("text") == "--help"
    assert grammar.parse(SEND, ["bob", "--message", "--help"]) is None


def test_the_bare_word_help_is_help_where_no_other_word_is_expected() -> None:
    assert grammar.parse(BY_NAME["status"], ["help"]) is None
    assert send("bob", "help").get("text") == "help"


def test_a_repeated_option_keeps_its_order_and_others_may_not_be_repeated() -> None:
    call = send("bob", "--attachment", "/b", "--attachment=/a", "hi")
    assert call.every("attachment") == ["/b", "/a"]
    with pytest.raises(UsageError, match="--message is given more than once"):
        grammar.parse(SEND, ["bob", "--message", "a", "--message", "b"])


@pytest.mark.requirement("cli:usage")
@pytest.mark.parametrize(
    ("tokens", "message", "hint"),
    [
        ([], "needs <peer>", ""),
        (["a", "b", "c"], "does not know what to do with 'c'", ""),
        (["a", "--mesage", "x"], "there is no option '--mesage'", "did you mean --message?"),
        (["a", "-x"], "there is no option '-x'", "put -- before a word that begins with a hyphen"),
        (["a", "--json=yes"], "--json takes no value", "write just --json"),
        (["a", "--attach", "x"], "there is no option '--attach'", "did you mean --attachment?"),
    ],
)
def test_a_line_that_is_not_understood_says_what_and_what_to_do(
    tokens: list[str], message: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        grammar.parse(SEND, tokens)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def reference(verb: Verb) -> argparse.ArgumentParser:
    """The standard parser for the same verb."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for option in verb.options:
        if option.metavar:
            parser.add_argument(option.flag, dest=option.name, action="append", default=[])
        else:
            parser.add_argument(option.flag, dest=option.name, action="store_true")
    parser.add_argument("peer")
    parser.add_argument("text", nargs="?")
    return parser


values = st.text(max_size=8).filter(lambda text: not text.startswith("-"))
words = st.text(min_size=1, max_size=8).filter(lambda text: not text.startswith("-"))


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    """Command lines of `send` in the part of the grammar that both parsers share."""
    groups: list[list[str]] = []
    for option in SEND.options:
        for _ in range(draw(st.integers(0, 3 if option.is_repeatable else 1))):
            if not option.metavar:
                groups.append([option.flag])
            elif draw(st.booleans()):
                groups.append([option.flag, draw(values)])
            else:
                groups.append([f"{option.flag}={draw(st.text(max_size=8))}"])
    shuffled = draw(st.permutations(groups))
    # The standard parser wants the words of a verb side by side.
    place = draw(st.integers(0, len(shuffled)))
    spoken = draw(st.lists(words, min_size=1, max_size=2))
    return [token for group in [*shuffled[:place], spoken, *shuffled[place:]] for token in group]


@given(lines())
def test_lines_both_parsers_understand_mean_the_same_to_both(line: list[str]) -> None:
    call = send(*line)
    expected = vars(reference(SEND).parse_args(line))
    for option in SEND.options:
        if option.metavar:
            assert call.every(option.name) == expected[option.name]
        else:
            assert call.has(option.name) == expected[option.name]
    assert (call.get("peer"), call.get("text")) == (expected["peer"], expected["text"])
