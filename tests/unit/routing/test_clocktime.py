from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iapeer.routing.clocktime import local_iso

# Half and quarter hours, both signs, summer times, a day that was left out.
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/St_Johns",
    "America/New_York",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Marquesas",
)


@pytest.fixture(params=ZONES, scope="module")
def zone(request: pytest.FixtureRequest) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield request.param
    time.tzset()


@given(ms=st.integers(946_684_800_000, 4_000_000_000_000))
def test_a_moment_is_written_as_the_standard_library_would(zone: str, ms: int) -> None:
    now = ms / 1000
    assert local_iso(now) == datetime.fromtimestamp(now).astimezone().isoformat(timespec="seconds")


def test_a_zone_west_of_utc_has_its_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/St_Johns")
    time.tzset()
    try:
        assert local_iso(1_795_392_345.9) == "2026-11-22T20:35:45-03:30"
    finally:
        monkeypatch.undo()
        time.tzset()
