from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from iapeer.storage.locks import TryLock, hold
from iapeer.storage.pokes import poke


def test_a_poke_makes_a_private_file_that_does_not_grow(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "pokes"
    for _ in range(3):
        poke(folder)
    (file,) = folder.iterdir()
    assert file.stat().st_size == 1
    assert file.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_poke_that_is_not_possible_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "pokes").write_text("a file", encoding="utf-8")
    poke(tmp_path / "pokes")
    assert (tmp_path / "pokes").read_text(encoding="utf-8") == "a file"


def test_a_lock_asked_for_in_passing_is_had_once_and_again_after_its_release(
    tmp_path: Path,
) -> None:
    first, second = TryLock(tmp_path / "lock"), TryLock(tmp_path / "lock")
    assert first.acquire()
    assert not second.acquire(wait_s=0.05)
    first.release()
    first.release()
    assert second.acquire()
    second.release()


def test_it_and_a_lock_that_is_held_exclude_each_other(tmp_path: Path) -> None:
    with hold(tmp_path / "lock", 1.0, "a thing"):
        assert not TryLock(tmp_path / "lock").acquire()
    lock = TryLock(tmp_path / "lock")
    assert lock.acquire()
    lock.release()


def test_it_is_freed_by_the_death_of_its_holder(tmp_path: Path) -> None:
    code = (
        "import sys, os; from pathlib import Path; from iapeer.storage.locks import TryLock\n"
        "assert TryLock(Path(sys.argv[1])).acquire(); print('held', flush=True); os.read(0, 1)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        lock = TryLock(tmp_path / "lock")
        assert not lock.acquire()
        child.kill()
        child.wait()
    assert lock.acquire()
    lock.release()
