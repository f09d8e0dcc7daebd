"""Reports have no secret and no word of a message in them."""

from __future__ import annotations

import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iapeer.core.ids import new_token, token_digest
from iapeer.sessions.forensics.redact import MESSAGE, SECRET, Redactor

BODY = "Please move the gold to vault nine.\nThe door code is known to Mallory only.\nNOW"


@pytest.mark.requirement("forensics:private")
@pytest.mark.parametrize(
    "secret",
    [
        "sk-ant-api03-AbCdEf0123456789xyz",
        "ghp_0123456789abcdefghijABCDEFGHIJ",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
        "AKIAIOSFODNN7EXAMPLE1",
        "f3a9" * 16,
        "Zm9vYmFyMTIzNDU2Nzg5MGFiY2RlZg==",
    ],
)
@pytest.mark.parametrize("frame", ["{}", "│ {} │", "key {} in use", '{{"k":"{}"}}'])
def test_what_looks_like_a_secret_is_gone(secret: str, frame: str) -> None:
    shown = Redactor().text(frame.format(secret))
    assert secret not in shown
    assert SECRET in shown


@pytest.mark.parametrize(
    "text",
    [
        "PEER_TOKEN=hunter22",
        "Authorization: Bearer abc.def-ghi",
        'api_key: "short-one"',
        "password hunter2hunter2",
        "http://iapeer:tellnobody@127.0.0.1:8080/x",
    ],
)
def test_what_is_called_a_secret_is_gone(text: str) -> None:
    shown = Redactor().text(text)
    assert SECRET in shown
    for word in ("hunter2", "abc.def", "short-one", "tellnobody"):
        assert word not in shown


def test_ordinary_words_stay() -> None:
    text = "--- memory\ntotal 24105 MiB, session 3f2a9c1d-0000-4000-8000-0123456789ab, ENOSPC"
    assert [Redactor().text(line) for line in text.split("\n")] == text.split("\n")


def test_the_sessions_own_token_is_known_by_its_digest() -> None:
    token = new_token()
    assert token not in Redactor((token_digest(token),)).text(f"say {token}!")
    plain = "onlylettersinthisverylongtokenwithoutanydigit"
    assert Redactor((token_digest(plain),)).text(plain) == SECRET
    assert Redactor().text(plain) == plain


def test_an_envelope_on_the_screen_is_one_word() -> None:
    rows = ["ready", "<iap from=demo-bob id=abc>", "move the gold", "</iap>", "● done"]
    assert Redactor().screen(rows) == ["ready", MESSAGE, "● done"]


@pytest.mark.requirement("forensics:private")
@given(st.integers(20, 160), st.sampled_from(["", "│ ", "❯ ", "   "]))
def test_a_body_is_found_however_the_screen_has_wrapped_it(width: int, frame: str) -> None:
    rows = [frame + row for line in BODY.split("\n") for row in textwrap.wrap(line, width)]
    shown = "\n".join(Redactor((), (BODY,)).screen(["● thinking", *rows, "error: no money"]))
    assert "gold" not in shown
    assert "Mallory" not in shown
    assert "● thinking" in shown
    assert "error: no money" in shown


@given(st.lists(st.text()), st.lists(st.text()))
def test_any_screen_and_any_body_are_taken(rows: list[str], bodies: list[str]) -> None:
    shown = Redactor((), bodies).screen(rows)
    assert len(shown) <= len(rows)
