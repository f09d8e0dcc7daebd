from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from iapeer.core.errors import DaemonRunning, LockBusy, StorageError
from iapeer.storage import locks
from iapeer.storage.locks import DaemonLock, hold, hold_folder, holder_pid

HOLD = (
    "import sys; from pathlib import Path; from iapeer.storage.locks import hold\n"
    "with hold(Path(sys.argv[1]), 5, 'it'): print('held', flush=True); sys.stdin.read()\n"
)
DAEMON = (
    "import sys; from pathlib import Path; from iapeer.storage.locks import DaemonLock\n"
    "with DaemonLock(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()\n"
)

FOLDER = (
    "import sys; from pathlib import Path; from iapeer.storage.locks import hold_folder\n"
    "with hold_folder(Path(sys.argv[1]), 5, 'it'): print('held', flush=True); sys.stdin.read()\n"
)


class Holder:
    """A process that holds a lock until told to end."""

    def __init__(self, code: str, path: Path) -> None:
        source = Path(locks.__file__).parents[2]
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, str(path)],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(source)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "held\n"

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def end(self) -> None:
        self.process.communicate(timeout=10)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.lock"


@pytest.fixture
def holders(path: Path) -> Iterator[list[Holder]]:
    made: list[Holder] = []
    yield made
    for holder in made:
        if holder.process.poll() is None:
            holder.kill()
        for stream in (holder.process.stdin, holder.process.stdout):
            if stream is not None and not stream.closed:
                stream.close()


def test_the_lock_file_is_0600_notes_the_pid_and_is_empty_again_but_stays(path: Path) -> None:
    with hold(path, 1, "it"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert holder_pid(path) == os.getpid()
    assert path.read_bytes() == b""
    assert holder_pid(path) is None


def test_a_busy_lock_names_the_thing_and_the_pid_of_its_holder(
    path: Path, holders: list[Holder]
) -> None:
    holders.append(Holder(HOLD, path))
    pid = holders[0].process.pid
    with (
        pytest.raises(LockBusy, match=f"registry is locked by pid {pid}"),
        hold(path, 0.1, "registry"),
    ):
        pytest.fail("got a lock that somebody holds")


def test_a_waiter_gets_the_lock_when_its_holder_ends(path: Path, holders: list[Holder]) -> None:
    holders.append(Holder(HOLD, path))
    ending = threading.Thread(target=holders[0].end)
    ending.start()
    with hold(path, 10, "it"):
        assert holder_pid(path) == os.getpid()
    ending.join(10)


def test_kill_9_frees_the_lock_at_once(path: Path, holders: list[Holder]) -> None:
    holders.append(Holder(HOLD, path))
    holders[0].kill()
    assert holder_pid(path) == holders[0].process.pid
    with hold(path, 0, "it"):
        assert holder_pid(path) == os.getpid()


def test_threads_of_one_process_exclude_each_other(path: Path) -> None:
    held, done = threading.Event(), threading.Event()

    def work() -> None:
        with hold(path, 5, "it"):
            held.set()
            done.wait(10)

    thread = threading.Thread(target=work)
    thread.start()
    assert held.wait(10)
    with pytest.raises(LockBusy, match=f"by pid {os.getpid()}"), hold(path, 0.1, "it"):
        pytest.fail("two threads are in")
    done.set()
    thread.join(10)


def test_an_error_in_the_block_frees_the_lock(path: Path) -> None:
    with pytest.raises(KeyError), hold(path, 1, "it"):
        raise KeyError
    with hold(path, 0, "it"):
        pass


def test_a_missing_folder_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    missing = tmp_path / "no" / "x.lock"
    with pytest.raises(StorageError, match=str(missing)), hold(missing, 1, "it"):
        pytest.fail("got a lock without a file")


def test_a_link_in_place_of_the_lock_is_refused(path: Path, tmp_path: Path) -> None:
    (tmp_path / "target").write_text("keep", encoding="utf-8")
    path.symlink_to(tmp_path / "target")
    with pytest.raises(StorageError), hold(path, 1, "it"):
        pytest.fail("locked through a link")
    assert (tmp_path / "target").read_text(encoding="utf-8") == "keep"


@pytest.mark.requirement("daemon:second")
def test_a_second_daemon_is_refused_and_told_the_pid(path: Path, holders: list[Holder]) -> None:
    holders.append(Holder(DAEMON, path))
    pid = holders[0].process.pid
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(DaemonRunning, match=f"daemon with pid {pid} owns this root"):
        DaemonLock(path).acquire()


def test_a_killed_daemon_leaves_no_lock(path: Path, holders: list[Holder]) -> None:
    holders.append(Holder(DAEMON, path))
    holders[0].kill()
    with DaemonLock(path):
        assert holder_pid(path) == os.getpid()


def test_a_released_daemon_lock_is_free_and_release_may_be_repeated(path: Path) -> None:
    lock = DaemonLock(path)
    lock.acquire()
    with pytest.raises(RuntimeError):
        lock.acquire()
    lock.release()
    lock.release()
    with DaemonLock(path):
        pass


def test_a_lock_is_not_inherited_by_programs_we_start(path: Path) -> None:
    with DaemonLock(path):
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        with hold(path, 0, "it"):
            pass
    finally:
        child.kill()
        child.wait(10)


@pytest.mark.parametrize("content", [b"", b"abc", b"\xff", "٣".encode()])
def test_a_note_that_is_no_pid_is_none(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert holder_pid(path) is None


def test_importing_the_module_does_not_import_filelock() -> None:
    source = Path(locks.__file__).parents[2]
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, iapeer.storage.locks; print('filelock' in sys.modules)",
        ],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(source)},
        capture_output=True,
        encoding="utf-8",
        timeout=30,
        check=True,
    )
    assert done.stdout == "False\n"


def test_a_folder_can_be_locked_and_nothing_is_put_into_it(
    tmp_path: Path, holders: list[Holder]
) -> None:
    holder = Holder(FOLDER, tmp_path)
    holders.append(holder)
    with (
        pytest.raises(LockBusy, match="my settings is locked"),
        hold_folder(tmp_path, 0.1, "my settings"),
    ):
        pass
    holder.kill()
    with hold_folder(tmp_path, 5, "my settings"):
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(LockBusy), hold_folder(tmp_path, 0, "my settings"):
            pass
    with pytest.raises(StorageError, match="could not lock"), hold_folder(tmp_path / "no", 0, "it"):
        pass
