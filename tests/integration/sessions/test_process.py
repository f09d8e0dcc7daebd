from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from iapeer.sessions.process import (
    DeathWatch,
    is_alive,
    start_time,
    terminate,
    unread_input,
    wait_gone,
)
from tests.integration.routing.house import until

pytestmark = pytest.mark.anyio
Child = subprocess.Popen[bytes]


@pytest.fixture
def child() -> Iterator[Child]:
    with subprocess.Popen(["sleep", "60"]) as made:
        yield made
        made.kill()


@pytest.fixture
def stubborn() -> Iterator[Child]:
    code = (
        "import signal,time;signal.signal(15,signal.SIG_IGN);print('x',flush=True);time.sleep(60)"
    )
    argv = [sys.executable, "-I", "-S", "-c", code]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as made:
        assert made.stdout is not None
        made.stdout.readline()
        yield made
        made.kill()


def started(child: Child) -> int:
    found = start_time(child.pid)
    assert found is not None
    return found


async def test_a_process_is_known_by_pid_and_start_time(child: Child) -> None:
    start = started(child)
    assert is_alive(child.pid, start)
    assert not is_alive(child.pid, start + 1)
    assert start_time(2**22 + 1) is None


async def test_a_zombie_is_gone_although_it_can_be_signalled(child: Child) -> None:
    start = started(child)
    child.kill()
    assert await wait_gone(child.pid, start, 5)
    os.kill(child.pid, 0)
    assert not is_alive(child.pid, start)
    assert start_time(child.pid) == start


async def test_a_watch_tells_a_death_once_and_lets_go_of_its_descriptor(child: Child) -> None:
    before = len(os.listdir("/proc/self/fd"))
    told: list[int] = []
    event = asyncio.Event()
    watch = DeathWatch()

    def tell() -> None:
        told.append(1)
        event.set()

    watch.watch(child.pid, started(child), tell)
    await asyncio.sleep(0.05)
    assert told == []
    child.kill()
    async with asyncio.timeout(30):
        await event.wait()
    child.wait()
    await asyncio.sleep(0.05)
    assert told == [1]
    assert len(os.listdir("/proc/self/fd")) == before
    watch.close()


@pytest.mark.parametrize("is_reaped", [False, True])
async def test_a_watch_of_the_dead_tells_soon_but_not_at_once(
    child: Child, is_reaped: bool
) -> None:
    start = started(child)
    child.kill()
    if is_reaped:
        child.wait()
    else:
        assert await wait_gone(child.pid, start, 5)
    event = asyncio.Event()
    DeathWatch().watch(child.pid, start, event.set)
    assert not event.is_set()
    async with asyncio.timeout(30):
        await event.wait()


async def test_another_start_time_counts_as_dead(child: Child) -> None:
    event = asyncio.Event()
    DeathWatch().watch(child.pid, started(child) - 1, event.set)
    async with asyncio.timeout(30):
        await event.wait()


async def test_a_cancelled_watch_is_silent(child: Child) -> None:
    told: list[str] = []
    event = asyncio.Event()
    watch = DeathWatch()
    start = started(child)
    first = watch.watch(child.pid, start, lambda: told.append("first"))
    last = watch.watch(child.pid, start, event.set)
    late = watch.watch(child.pid, start - 1, lambda: told.append("late"))
    late.cancel()
    first.cancel()
    first.cancel()
    child.kill()
    async with asyncio.timeout(30):
        await event.wait()
    await asyncio.sleep(0.05)
    assert told == []
    last.cancel()


async def test_waiting_is_bounded(child: Child) -> None:
    assert not await wait_gone(child.pid, started(child), 0.05)


async def test_a_polite_process_is_ended_by_term(child: Child) -> None:
    assert await terminate(child.pid, started(child), 5)
    assert child.wait() == -signal.SIGTERM


async def test_a_stubborn_process_is_killed_after_its_grace(stubborn: Child) -> None:
    assert await terminate(stubborn.pid, started(stubborn), 0.1)
    assert stubborn.wait() == -signal.SIGKILL


async def test_a_foreign_process_under_an_old_pid_is_not_signalled(child: Child) -> None:
    assert await terminate(child.pid, started(child) - 1, 0.1)
    assert child.poll() is None


async def test_both_readers_of_the_process_table_agree_about_life(
    child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    start = started(child)
    assert is_alive(child.pid, start)
    child.kill()
    child.wait()
    assert start_time(child.pid) is None


async def test_what_a_program_has_not_read_from_its_terminal_is_counted() -> None:
    master, slave = os.openpty()
    tty.setraw(slave)
    argv = [sys.executable, "-I", "-S", "-c", _READER]
    with subprocess.Popen(
        argv, stdin=slave, stdout=subprocess.PIPE, start_new_session=True, bufsize=0
    ) as reader:
        try:
            assert reader.stdout is not None
            assert await asyncio.to_thread(reader.stdout.readline) == b"ready\n"
            assert unread_input(os.ttyname(slave)) == 0
            os.write(master, b"abc\r")
            await until(lambda: unread_input(os.ttyname(slave)) == 4, "the bytes to be there")
            reader.send_signal(signal.SIGUSR1)
            await until(lambda: unread_input(os.ttyname(slave)) == 0, "the bytes to be read")
        finally:
            reader.kill()
            os.close(master)
            os.close(slave)


def test_what_is_no_terminal_or_is_gone_tells_nothing_of_what_is_unread(tmp_path: Path) -> None:
    assert unread_input("/dev/null") is None
    assert unread_input(str(tmp_path / "gone")) is None


_READER = """
import fcntl, os, signal, termios, time
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGUSR1, lambda *_: os.read(0, 100))
print("ready", flush=True)
time.sleep(60)
time.sleep(60)
"""
