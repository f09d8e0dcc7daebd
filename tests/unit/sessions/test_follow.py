"""A follower misses nothing, repeats nothing, and its offset is where another one may go on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iapeer.runtimes.spec import Record
from iapeer.sessions import follow
from iapeer.sessions.evidence import Fact
from iapeer.sessions.follow import TranscriptFollower

RECORDS = (Record(match={"type": "user"}, kind="user", text="text"),)


def _line(n: int, pad: int = 0) -> bytes:
    text = f'<iap from="a" runtime="b" id="m{n}"><msg>{"x" * pad}</msg></iap>'
    return json.dumps({"type": "user", "text": text}).encode() + b"\n"


class Sink:
    def __init__(self, path: Path, offset: int = 0) -> None:
        self.facts: list[Fact] = []
        self.offset = offset
        self.follower = TranscriptFollower(path, RECORDS, offset, self._take)

    def _take(self, facts: list[Fact], offset: int) -> None:
        self.facts += facts
        self.offset = offset

    @property
    def ids(self) -> list[str]:
        return [i for fact in self.facts for i in fact.ids]


def _append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_a_file_that_is_not_there_yet_is_nothing_special(tmp_path: Path) -> None:
    sink = Sink(tmp_path / "t.jsonl")
    sink.follower.read_new()
    _append(tmp_path / "t.jsonl", _line(1))
    sink.follower.read_new()
    sink.follower.read_new()
    assert sink.ids == ["m1"]


def test_a_half_written_record_is_taken_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    sink = Sink(path)
    _append(path, _line(1) + _line(2)[:10])
    sink.follower.read_new()
    assert (sink.ids, sink.offset) == (["m1"], len(_line(1)))
    _append(path, _line(2)[10:])
    sink.follower.read_new()
    assert sink.ids == ["m1", "m2"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.lists(st.integers(0, 400), max_size=6), st.lists(st.integers(1, 90), max_size=8))
def test_followers_that_replace_each_other_miss_and_repeat_nothing(
    tmp_path: Path, pads: list[int], cuts: list[int]
) -> None:
    path = tmp_path / f"{os.urandom(6).hex()}.jsonl"
    whole = b"".join(_line(n, pad) for n, pad in enumerate(pads))
    path.write_bytes(b"")
    ids: list[str] = []
    offset = 0
    at = 0
    for cut in [*cuts, len(whole)]:
        _append(path, whole[at : at + cut])
        at += cut
        sink = Sink(path, offset)
        sink.follower.read_new()
        ids += sink.ids
        offset = sink.offset
    assert ids == [f"m{n}" for n in range(len(pads))]


def test_a_file_that_shrank_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    _append(path, _line(1) + _line(2))
    sink = Sink(path)
    sink.follower.read_new()
    path.write_bytes(_line(3))
    sink.follower.read_new()
    assert sink.ids == ["m1", "m2", "m3"]


def test_a_record_over_many_reads_is_one_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "CHUNK_BYTES", 7)
    path = tmp_path / "t.jsonl"
    _append(path, _line(1, 300) + _line(2))
    sink = Sink(path)
    sink.follower.read_new()
    assert sink.ids == ["m1", "m2"]
    assert sink.offset == path.stat().st_size


def test_the_offset_never_stands_inside_a_line_that_is_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A follower that went on there would take the tail of a tool's output for a record."""
    from iapeer.sessions import evidence

    monkeypatch.setattr(evidence, "MAX_LINE_BYTES", 64)
    path = tmp_path / "t.jsonl"
    _append(path, _line(1, 0)[:40].rstrip() + b"z" * 200)
    first = Sink(path)
    first.follower.read_new()
    _append(path, _line(7)[:64].strip() + b"\n")
    monkeypatch.undo()
    second = Sink(path, first.offset)
    second.follower.read_new()
    assert second.ids == []


class OneFolder:
    """A notifier that calls back when told."""

    def __init__(self) -> None:
        self.callbacks: list[Callable[[], None]] = []

    def watch(self, folder: Path, callback: Callable[[], None]) -> Callable[[], None]:
        assert folder.is_dir()
        self.callbacks.append(callback)
        return lambda: self.callbacks.remove(callback)

    def close(self) -> None:
        self.callbacks.clear()


def test_nothing_is_watched_after_stop(tmp_path: Path) -> None:
    notifier = OneFolder()
    sink = Sink(tmp_path / "t.jsonl")
    _append(tmp_path / "t.jsonl", _line(1))
    sink.follower.start(notifier)
    assert sink.ids == ["m1"]
    _append(tmp_path / "t.jsonl", _line(2))
    notifier.callbacks[0]()
    assert sink.ids == ["m1", "m2"]
    sink.follower.stop()
    sink.follower.stop()
    assert notifier.callbacks == []
