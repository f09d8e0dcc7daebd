"""The kernel's log: what is new enough to be of a session, in the form that reports show."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from iapeer.sessions.forensics import oom


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A pipe in place of the kernel's log: each read gives one record, as there."""
    reader, writer = os.pipe2(os.O_DIRECT | os.O_CLOEXEC)
    monkeypatch.setattr(oom, "_KMSG", Path(f"/proc/self/fd/{reader}"))
    yield writer
    os.close(reader)
    os.close(writer)


def _record(age_s: float, text: bytes) -> bytes:
    at = time.monotonic() - age_s
    return b"6,1234,%d,-;%s\n SUBSYSTEM=x\n" % (at * 1e6, text)


def _texts(lines: list[str]) -> Iterator[str]:
    return (line.partition("] ")[2] for line in lines)


def test_lines_from_before_the_session_are_left_out(kernel: int) -> None:
    for age_s, text in ((100, b"old"), (15, b"of a moment before"), (1, b"new; too")):
        os.write(kernel, _record(age_s, text))
    assert list(_texts(oom.kernel_lines(10))) == ["of a moment before", "new; too"]


def test_lines_that_make_no_sense_cost_only_themselves(kernel: int) -> None:
    for text in (b"garbage", b"6,1;x", b"6,1,y,-;x", b"6,1,2", b"\xff\n"):
        os.write(kernel, text)
    os.write(kernel, _record(1, b"Killed process 7 (\xff)"))
    found = oom.kernel_lines(10)
    assert list(_texts(found)) == ["Killed process 7 (\ufffd)"]
    assert oom.named_in(found, {7})
