from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from iapeer.core import ids
from iapeer.core.clock import FakeClock, SystemClock


@given(st.binary(min_size=8, max_size=8))
def test_a_message_id_has_its_form_for_any_randomness(data: bytes) -> None:
    made = ids.new_message_id(lambda _n: data)
    assert ids.is_message_id(made)
    assert len(made) == ids.MESSAGE_ID_LENGTH


def test_sixty_bits_of_the_randomness_count() -> None:
    def made(bit: int) -> str:
        return ids.new_message_id(lambda size: (1 << bit).to_bytes(size, "big"))

    assert len({made(bit) for bit in range(60)}) == 60


def test_ids_and_tokens_do_not_repeat() -> None:
    assert len({ids.new_message_id() for _ in range(5000)}) == 5000
    assert len({ids.new_token() for _ in range(100)}) == 100
    assert len({ids.new_uid() for _ in range(100)}) == 100


def test_what_only_resembles_an_id_is_none() -> None:
    good = "abcdefghij27"
    assert ids.is_message_id(good)
    for bad in ("", good[:-1], good + "a", good.upper(), good[:-1] + "1", good + "\n", f" {good}"):
        assert not ids.is_message_id(bad), bad


def test_a_digest_is_sha256_and_takes_any_text() -> None:
    assert ids.token_digest("abc") == hashlib.sha256(b"abc").hexdigest()
    assert len(ids.token_digest("\ud800")) == 64


@given(
    st.text(alphabet=st.characters(codec="utf-8")), st.text(alphabet=st.characters(codec="utf-8"))
)
def test_secrets_compare_by_value(left: str, right: str) -> None:
    assert ids.equal(left, left)
    assert ids.equal(left, right) == (left == right)


def test_a_comparison_with_what_is_no_utf8_is_no_crash() -> None:
    assert not ids.equal("\udcff", "secret")


def test_a_jump_moves_only_the_wall_clock() -> None:
    clock = FakeClock(100.0)
    before = clock.monotonic()
    clock.jump(-50)
    assert (clock.now(), clock.monotonic()) == (50.0, before)
    clock.advance(2)
    assert (clock.now(), clock.monotonic()) == (52.0, before + 2)


def test_the_machines_clocks_run() -> None:
    clock = SystemClock()
    assert clock.now() > 1_700_000_000
    first = clock.monotonic()
    assert clock.monotonic() >= first
