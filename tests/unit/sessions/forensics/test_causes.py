"""The rules that say what a session died of, row by row."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iapeer.sessions.forensics.causes import Cause, Evidence, classify, signal_name

PROJECT = Path(__file__).parents[4]

ROWS: list[tuple[str, Evidence, Cause, str]] = [
    ("exit 0", Evidence(what="program", status=0), Cause.EXIT, "sure"),
    ("exit 3", Evidence(what="program", status=3), Cause.EXIT, "sure"),
    ("SIGTERM", Evidence(what="program", signal=15), Cause.SIGNAL, "sure"),
    ("SIGKILL", Evidence(what="program", signal=9), Cause.SIGNAL, "sure"),
    ("SIGSEGV", Evidence(what="program", signal=11), Cause.CRASH, "likely"),
    ("SIGABRT", Evidence(what="program", signal=6), Cause.CRASH, "likely"),
    ("it caught TERM and left", Evidence(what="program", status=143), Cause.SIGNAL, "likely"),
    ("the last status of a signal", Evidence(what="program", status=192), Cause.SIGNAL, "likely"),
    ("a status beyond signals", Evidence(what="program", status=200), Cause.EXIT, "sure"),
    ("nobody knows how", Evidence(what="program"), Cause.UNKNOWN, "guess"),
    (
        "SIGKILL, and the cgroup ran out of memory",
        Evidence(what="program", signal=9, memory_kills=1),
        Cause.OOM,
        "likely",
    ),
    (
        "another signal while somebody else ran out of memory",
        Evidence(what="program", signal=15, memory_kills=1),
        Cause.SIGNAL,
        "sure",
    ),
    (
        "the kernel names it",
        Evidence(what="program", signal=9, killed_for_memory=True),
        Cause.OOM,
        "sure",
    ),
    ("exit at boot", Evidence(what="boot", status=1), Cause.BOOT_CRASH, "sure"),
    ("killed at boot", Evidence(what="boot", signal=9), Cause.BOOT_CRASH, "sure"),
    (
        "quota as last words",
        Evidence(what="program", status=1, words="Claude usage limit reached. Resets 3pm"),
        Cause.QUOTA,
        "likely",
    ),
    ("quota held", Evidence(what="program", status=1, hold="quota"), Cause.QUOTA, "likely"),
    (
        "API error as last words",
        Evidence(what="program", status=1, words="API Error: 529 overloaded"),
        Cause.API_ERROR,
        "likely",
    ),
    (
        "its last turn had an API error",
        Evidence(what="program", status=0, turn_end="api_error"),
        Cause.API_ERROR,
        "likely",
    ),
    (
        "killed after an API error is still killed",
        Evidence(what="program", signal=9, turn_end="api_error"),
        Cause.SIGNAL,
        "sure",
    ),
    ("its own server left", Evidence(what="own-server", status=2), Cause.EXIT, "sure"),
    (
        "server vanished",
        Evidence(what="server", recorder="server-vanished"),
        Cause.SERVER_KILLED,
        "likely",
    ),
    (
        "server vanished for want of memory",
        Evidence(what="server", recorder="server-vanished", memory_kills=2),
        Cause.OOM,
        "likely",
    ),
    (
        "server ended in order, memory or not",
        Evidence(what="server", recorder="signaled-server-gone", memory_kills=2),
        Cause.SERVER_KILLED,
        "likely",
    ),
    (
        "server and client swept away",
        Evidence(what="server", recorder="client-killed-server-gone"),
        Cause.SERVER_KILLED,
        "likely",
    ),
    ("only the daemon saw it", Evidence(what="server"), Cause.SERVER_KILLED, "likely"),
    (
        "nobody saw it, the daemon was stopped",
        Evidence(what="server", watched=False, stopped=True),
        Cause.SERVICE_STOP,
        "guess",
    ),
    ("nobody saw it", Evidence(what="server", watched=False), Cause.UNKNOWN, "guess"),
    (
        "the host was started anew",
        Evidence(what="server", watched=False, stopped=True, rebooted=True),
        Cause.HOST_REBOOT,
        "sure",
    ),
]


@pytest.mark.requirement("forensics:cause")
@pytest.mark.parametrize(
    ("found", "cause", "confidence"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_each_kind_of_end_has_its_cause(found: Evidence, cause: Cause, confidence: str) -> None:
    verdict = classify(found)
    assert (verdict.cause, verdict.confidence) == (cause, confidence)
    assert verdict.why


def test_every_cause_is_in_the_table_above_and_in_the_documentation() -> None:
    assert {row[2] for row in ROWS} == set(Cause)
    text = (PROJECT / "docs/howto/why-did-it-die.md").read_text(encoding="utf-8")
    written = re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE)
    assert sorted(written) == sorted(Cause)


@given(
    st.builds(
        Evidence,
        what=st.sampled_from(["program", "server", "own-server", "boot"]),
        status=st.none() | st.integers(0, 255),
        signal=st.none() | st.integers(1, 200),
        recorder=st.sampled_from(["", "server-vanished", "signaled-server-gone", "new-word"]),
        watched=st.booleans(),
        stopped=st.booleans(),
        rebooted=st.booleans(),
        killed_for_memory=st.booleans(),
        memory_kills=st.integers(0, 3),
        words=st.text(),
    )
)
def test_there_is_always_a_verdict_with_a_reason(found: Evidence) -> None:
    verdict = classify(found)
    assert verdict.why
    assert "\n" not in verdict.why
    if found.rebooted:
        assert verdict.cause is Cause.HOST_REBOOT


def test_signals_have_their_names() -> None:
    assert [signal_name(n) for n in (1, 9, 11, 15)] == ["HUP", "KILL", "SEGV", "TERM"]
    assert signal_name(signal.SIGRTMIN + 3).isdigit() or signal_name(signal.SIGRTMIN + 3)
    assert signal_name(200) == "200"
