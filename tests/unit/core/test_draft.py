from __future__ import annotations

from typing import Any

import pytest

from iapeer.core.draft import Draft, validate
from iapeer.core.errors import InvalidInput


def make(**changes: Any) -> Draft:
    return Draft(**({"to": "bob", "message": "hello"} | changes))


@pytest.mark.requirement("send:check:message", "send:check:units")
@pytest.mark.parametrize(
    "draft",
    [
        make(),
        make(message="x" * 16_000, topic="t" * 200, runtime="claude"),
        make(message="😀" * 16_000),
        make(attachments=tuple(f"/f{n}" for n in range(20))),
        make(topic=""),
    ],
)
def test_drafts_within_the_limits_pass(draft: Draft) -> None:
    validate(draft)


@pytest.mark.requirement(
    "send:check:message",
    "send:check:topic",
    "send:check:attachments",
    "send:check:names",
)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attachments": ("/f",) * 21}, "attachments exceeds 20 item limit (got 21)"),
        ({"attachments": ("/ok", "rel/x")}, 'absolute local paths (attachments[1] is "rel/x")'),
        ({"attachments": (7,)}, "absolute local paths (attachments[0] is int)"),
        ({"attachments": ("/a\nb",)}, 'must not contain newline (attachments[0] is "/a b")'),
        ({"attachments": ("/a\rb",)}, "must not contain newline"),
        ({"attachments": ("/" + "a" * 4096,)}, "path exceeds 4096 char limit (got 4097)"),
        ({"to": ""}, 'requires non-empty "personality" and "message"'),
        ({"message": ""}, 'requires non-empty "personality" and "message"'),
        ({"to": "Bob"}, 'invalid personality "Bob"'),
        ({"to": "bob\n"}, "invalid personality"),
        ({"runtime": "a-b"}, 'invalid runtime "a-b"'),
        ({"topic": "t" * 201}, "topic exceeds 200 char limit (got 201)"),
        ({"topic": " " * 201}, "topic exceeds 200 char limit (got 201)"),
        ({"message": "x" * 16_001}, "message exceeds 16000 char limit (got 16001)"),
    ],
)
def test_each_limit_is_named_with_the_measured_value(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        validate(make(**changes))
    assert message in caught.value.message
    assert caught.value.hint


@pytest.mark.requirement("send:check:order")
def test_faults_are_reported_in_the_order_of_the_contract() -> None:
    faults: list[tuple[str, Any, Any, str]] = [
        ("attachments", ("x",) * 21, ("/a\n", "x"), "20 item limit"),
        ("attachments", ("/a\n", "x"), ("/a\n",), "absolute local paths"),
        ("attachments", ("/a\n",), (), "must not contain newline"),
        ("to", "", "Bad", "requires non-empty"),
        ("to", "Bad", "bob", "invalid personality"),
        ("runtime", "a-b", None, "invalid runtime"),
        ("topic", "t" * 201, None, "topic exceeds"),
        ("message", "x" * 16_001, "hello", "message exceeds"),
    ]
    fields: dict[str, Any] = {name: bad for name, bad, _, _ in reversed(faults)}
    for name, bad, good, keyword in faults:
        fields[name] = bad
        with pytest.raises(InvalidInput, match=keyword):
            validate(make(**fields))
        fields[name] = good
    validate(make(**fields))


def test_no_message_is_quoted_in_an_error() -> None:
    with pytest.raises(InvalidInput) as caught:
        validate(make(message="secret" * 4000))
    assert "secret" not in str(caught.value)
