from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import pytest

import iapeer.runtimes
from iapeer.core.states import HoldReason, TurnEnd
from iapeer.runtimes.manifest import load_manifest
from iapeer.runtimes.spec import Errors
from iapeer.sessions.evidence import Fact
from iapeer.sessions.failure import MAX_WAIT_S, hold_of, reset_of

NOON = datetime(2026, 11, 22, 12, 0).astimezone()
NOW = NOON.timestamp()
MANIFESTS = Path(iapeer.runtimes.__file__).parent / "manifests"


def _fact(words: str = "", error: str = "", reset_at: float | None = None) -> Fact:
    return Fact("turn_end", status=TurnEnd.API_ERROR, error=error, words=words, reset_at=reset_at)


def _errors(runtime: str) -> Errors:
    return load_manifest(MANIFESTS / f"{runtime}.toml").errors


def _local(**change: int) -> float:
    return NOON.replace(**change).timestamp()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("You've hit your session limit · resets 3pm (Europe/Berlin)", _local(hour=15)),
        ("You've hit your session limit · resets 3:30pm", _local(hour=15, minute=30)),
        (
            "You've hit your limit · resets 9am",
            (NOON.replace(hour=9) + timedelta(days=1)).timestamp(),
        ),
        ("resets Nov 25, 3pm (Europe/Berlin)", _local(day=25, hour=15)),
        (f"Claude AI usage limit reached|{int(NOW) + 600}", NOW // 1 + 600),
        (f"usage limit reached|{(int(NOW) + 600) * 1000}", NOW // 1 + 600),
        ("resets in 2h 5m", NOW + 2 * 3600 + 5 * 60),
        ("please retry after 30s", NOW + 30),
    ],
)
def test_the_words_of_a_real_agent_say_when_it_is_over(words: str, expected: float) -> None:
    assert reset_of(_fact(words), _errors("claude"), NOW) == pytest.approx(expected, abs=1)


@pytest.mark.parametrize(
    ("told", "seconds", "wait_s"),
    [
        ("3:58 AM", 3 * 3600 + 58 * 60 + 6, 54),
        ("11:59 PM", 24 * 3600 - 1, 1),
        ("3:58 AM", 3 * 3600 + 59 * 60 + 6, None),
        ("11:59 PM", 30, None),
        ("12:03 AM", 24 * 3600 - 120, 300),
        ("3:58 AM", 5 * 3600, 22 * 3600 + 58 * 60),
    ],
)
def test_a_time_without_its_seconds_is_not_over_before_its_minute_is(
    told: str, seconds: int, wait_s: float | None
) -> None:
    now = NOON.replace(hour=0).timestamp() + seconds
    found = reset_of(_fact(f"You've hit your limit, try again at {told}."), _errors("codex"), now)
    assert (found and found - now) == (wait_s and pytest.approx(wait_s, abs=1))


def test_what_is_read_late_counts_from_when_it_was_said() -> None:
    fact = msgspec.structs.replace(_fact("please retry after 30s"), at=NOW - 20)
    assert reset_of(fact, _errors("claude"), NOW) == pytest.approx(NOW + 10)
    fact = msgspec.structs.replace(_fact("resets 11:50am"), at=NOW - 1800)
    assert reset_of(fact, _errors("claude"), NOW) is None


@pytest.mark.parametrize(
    "words",
    [
        "",
        "API Error: Request rejected (429)",
        "resets 99pm",
        "resets Feb 31, 3pm",
        "resets Xyz 25, 3pm",
        "limit reached|1000000000",
        "resets Nov 25, 2031, 3pm",
    ],
)
def test_words_without_a_time_that_makes_sense_say_nothing(words: str) -> None:
    assert reset_of(_fact(words), _errors("claude"), NOW) is None


def test_what_the_runtime_itself_gives_goes_before_its_words() -> None:
    fact = _fact("resets 3pm", reset_at=NOW + 60)
    assert reset_of(fact, _errors("claude"), NOW) == NOW + 60


@pytest.mark.parametrize("reset_at", [NOW, NOW - 1, NOW + MAX_WAIT_S + 1])
def test_a_time_that_is_over_or_too_far_away_is_not_believed(reset_at: float) -> None:
    assert reset_of(_fact(reset_at=reset_at), Errors(), NOW) is None


@pytest.mark.parametrize(
    ("runtime", "category", "reason"),
    [
        ("claude", "rate_limit", HoldReason.QUOTA),
        ("claude", "server_error", HoldReason.API_ERROR),
        ("claude", "", HoldReason.API_ERROR),
        ("codex", "rate_limit", HoldReason.QUOTA),
        ("codex", "overloaded", HoldReason.API_ERROR),
        ("demo", "rate_limit", HoldReason.API_ERROR),
    ],
)
def test_a_used_up_quota_is_told_from_other_errors(
    runtime: str, category: str, reason: HoldReason
) -> None:
    assert hold_of(_fact(error=category), _errors(runtime)) == reason
