"""Files of other writers stay in their bounds, and stay the same files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from iapeer.core.settings import make_settings
from iapeer.sessions.canary import keeper
from iapeer.storage.logs import LogFile
from iapeer.storage.paths import Paths
from iapeer.storage.retention import cut, prune


def test_a_long_file_keeps_its_end_and_its_writer(tmp_path: Path) -> None:
    path = tmp_path / "pane.log"
    with path.open("ab", buffering=0) as writer:
        writer.write(bytes(range(256)) * 16)
        before = path.stat().st_ino
        assert cut(path, 4000, 1000)
        assert path.read_bytes() == (bytes(range(256)) * 16)[-1000:]
        writer.write(b"next")
    assert path.read_bytes().endswith(b"\xffnext")
    assert path.stat().st_ino == before
    assert not cut(path, 4000, 1000)
    assert not cut(tmp_path / "none", 1, 1)


def test_the_oldest_files_go_first_and_the_newest_stays(tmp_path: Path) -> None:
    for number in range(6):
        path = tmp_path / f"{number}.txt"
        path.write_bytes(b"x" * 100)
        os.utime(path, (1000 + number, 1000 + number))
    (tmp_path / "other").write_bytes(b"x" * 1000)
    assert prune(tmp_path, "*.txt", budget=350, most=10) == 3
    assert sorted(p.name for p in tmp_path.glob("*.txt")) == ["3.txt", "4.txt", "5.txt"]
    assert prune(tmp_path, "*.txt", budget=350, most=2) == 1
    assert prune(tmp_path, "*.txt", budget=1, most=2) == 1
    assert [p.name for p in tmp_path.glob("*.txt")] == ["5.txt"]


def test_a_log_that_shells_append_to_is_rotated_as_any_other(tmp_path: Path) -> None:
    path = tmp_path / "exits.log"
    log = LogFile(path, 100, 2)
    log.tidy()
    path.write_bytes(b"a" * 101)
    log.tidy()
    assert path.with_name("exits.log.1").read_bytes() == b"a" * 101
    assert not path.exists()
    path.write_bytes(b"b" * 50)
    log.tidy()
    assert path.read_bytes() == b"b" * 50


@pytest.mark.requirement("forensics:retention")
def test_the_keeper_keeps_everything_in_its_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "REPORTS", 2)
    monkeypatch.setattr(keeper, "PANE_LOG_BYTES", 100)
    monkeypatch.setattr(keeper, "PANE_LOG_KEPT", 10)
    paths = Paths(tmp_path)
    for folder in (paths.server_deaths, paths.pane_logs, paths.canaries):
        folder.mkdir(parents=True)
    for number in range(4):
        (paths.server_deaths / f"{number}.txt").write_text("x", encoding="utf-8")
    paths.pane_log("demo-ann").write_bytes(b"y" * 101)
    settings = make_settings({"HOME": str(tmp_path)}, flags={"log_max_bytes": 10})
    paths.exits_log.write_bytes(b"z" * 11)
    keeper.tidy(paths, settings)
    assert len(list(paths.server_deaths.iterdir())) == 2
    assert paths.pane_log("demo-ann").stat().st_size == 10
    assert paths.exits_log.with_name("exits.log.1").exists()
