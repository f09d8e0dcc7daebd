"""Message ids in opencode's history: they sort like its own and can be read back."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from iapeer.core.ids import new_message_id
from iapeer.sessions.httpserver.ids import marker_of, message_id_of, native_message_id

# Made by opencode 1.18.33 with the clock at this many milliseconds.
THEIRS, THEIR_MS = "msg_20477a5a5001Qty4KvrLlsmgxK", 1795371279781

moments = st.floats(min_value=1_700_000_000, max_value=4_000_000_000)
markers = st.builds(
    lambda seed, attempt: f"{new_message_id(lambda n: seed.to_bytes(n, 'big'))}-{attempt}",
    st.integers(0, 2**64 - 1),
    st.integers(1, 10_000),
)


@given(markers, moments)
def test_a_marker_is_read_back_whole(marker: str, now: float) -> None:
    native = native_message_id(marker, now)
    assert (marker_of(native), message_id_of(native)) == (marker, marker[:12])
    assert re.fullmatch(r"msg_[A-Za-z0-9_-]+", native)


@given(markers, markers, st.integers(-60_000, 60_000))
def test_ours_and_theirs_sort_by_time(one: str, other: str, away_ms: int) -> None:
    ours = native_message_id(one, (THEIR_MS + away_ms) / 1000 + 0.0004)
    if away_ms:
        assert (ours > THEIRS) == (away_ms > 0)
    later = native_message_id(other, (THEIR_MS + away_ms + 1) / 1000 + 0.0004)
    assert ours < later


@given(st.text("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", max_size=30))
def test_an_id_of_theirs_is_never_taken_for_ours(rest: str) -> None:
    assert message_id_of(f"msg_{rest}") == ""
    assert message_id_of(f"msg_20477a5a5001{rest}") == ""
    assert marker_of(THEIRS) == ""
