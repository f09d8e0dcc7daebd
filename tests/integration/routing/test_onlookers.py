"""People who attach, by whatever way, and what lifecycle.log tells of them."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

import pytest

from iapeer.sessions import onlookers
from iapeer.sessions.onlookers import KNOWN
from tests.integration.routing.house import House, open_house, until
from tests.integration.routing.quiet import event, events, gone

pytestmark = [pytest.mark.anyio, pytest.mark.real_tmux]

TIOCGPTN = 0x80045430
"""Linux: which terminal belongs to this end of it."""


@dataclass
class Person:
    """Somebody at a terminal of their own; `read` it or the client waits for it."""

    pid: int
    terminal: int
    tty: str = ""
    gone: bool = False

    def __post_init__(self) -> None:
        os.set_blocking(self.terminal, False)
        os.set_inheritable(self.terminal, False)
        number = fcntl.ioctl(self.terminal, TIOCGPTN, bytes(4))
        self.tty = f"/dev/pts/{int.from_bytes(number, sys.byteorder)}"

    def read(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            while os.read(self.terminal, 65536):
                pass

    def reap(self) -> bool:
        self.gone = self.gone or os.waitpid(self.pid, os.WNOHANG)[0] != 0
        return self.gone

    def leave(self) -> None:
        if not self.gone:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.gone = True
        self.hang_up()

    def hang_up(self) -> None:
        """Close the terminal, once: its number may be somebody else's by then."""
        terminal, self.terminal = self.terminal, -1
        if terminal >= 0:
            os.close(terminal)


def attach(house: House, name: str) -> Person:
    """Attach by plain tmux; no parent of ours keeps the terminal open."""
    sock = next(house.settings.sock_dir.glob(f"*demo-{name}.sock"))
    argv = ["tmux", "-N", "-S", str(sock), "attach", "-t", f"=demo-{name}"]
    environ = {"PATH": house.environ["PATH"], "LC_ALL": "C.UTF-8", "TERM": "xterm"}
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            os.execvpe("tmux", argv, environ)  # noqa: S606
        finally:
            os._exit(127)
    return Person(pid, terminal)


@contextlib.contextmanager
def at(house: House, name: str) -> Iterator[Person]:
    person = attach(house, name)
    try:
        yield person
    finally:
        person.leave()


async def pressed(person: Person) -> None:
    """Press the keys until they count: tmux loses keys of the first milliseconds."""

    def press() -> bool:
        person.read()
        with contextlib.suppress(OSError):
            os.write(person.terminal, b"\x1dd")
        return person.reap()

    await until(press, "tmux to detach", poll_s=0.3)


async def by_keys(_house: House, person: Person) -> None:
    await pressed(person)


async def by_kill(_house: House, person: Person) -> None:
    os.kill(person.pid, signal.SIGKILL)


async def by_closing_the_terminal(_house: House, person: Person) -> None:
    person.hang_up()


async def by_another_hand(house: House, person: Person) -> None:
    house.tmux("ann", "detach-client", "-t", person.tty)


@pytest.mark.requirement("logs:attach", "logs:attach:any-way")
@pytest.mark.parametrize("way", [by_keys, by_kill, by_closing_the_terminal, by_another_hand])
async def test_one_line_when_a_person_comes_one_when_they_leave(
    way: Callable[[House, Person], Awaitable[None]],
) -> None:
    async with open_house("ann") as house:
        session = await house.live("ann")
        with at(house, "ann") as person:
            tty = person.tty
            came = await event(house, "attach")
            assert events(house, "attach-end") == []
            await way(house, person)
            left = await event(house, "attach-end")
        assert len(events(house, "attach")) == len(events(house, "attach-end")) == 1
    ours = {"identity": "demo-ann", "personality": "ann", "runtime": "demo", "session": session.id}
    assert ours.items() <= came.items()
    assert ours.items() <= left.items()
    assert (came["tty"], came["pid"], came["woke"]) == (tty, str(person.pid), "false")
    assert (left["tty"], left["pid"], left["cause"]) == (tty, str(person.pid), "left")
    assert 0 <= int(left["elapsed"]) < 60


@pytest.mark.requirement("logs:attach:session-end")
@pytest.mark.parametrize("end", ["stop", "program", "server"])
async def test_whoever_is_there_when_the_session_ends_has_left(end: str) -> None:
    async with open_house("ann") as house:
        session = await house.live("ann")
        with at(house, "ann") as person:
            await event(house, "attach")
            if end == "stop":
                await house.fleet.stop("ann", None)
            else:
                victim = session.pane if end == "program" else session.server
                os.kill(victim[0], signal.SIGKILL)
            await gone(house, "ann")
            left = await event(house, "attach-end")
        assert (left["pid"], left["cause"]) == (str(person.pid), "session-end")
        lines = house.paths.lifecycle_log.read_text(encoding="utf-8").splitlines()
        order = [line.split()[1] for line in lines if " session=" + session.id in line]
        assert order.index("ev=attach-end") < order.index("ev=end")
        assert len(events(house, "attach-end")) == 1


@pytest.mark.requirement("logs:attach:session-end")
async def test_a_person_who_watches_a_boot_fail_has_been_there() -> None:
    async with open_house("ann", misbehave="hang_at_start", boot_deadline_s=3.0) as house:
        await house.accept("ann", "hello")
        house.lane("ann").work()
        await until(lambda: list(house.settings.sock_dir.glob("*demo-ann.sock")), "a server")
        await until(lambda: "demo-ann" in house.tmux("ann", "list-sessions"), "a session")
        with at(house, "ann"):
            await event(house, "attach")
            left = await event(house, "attach-end")
        assert left["cause"] == "session-end"


@pytest.mark.requirement("logs:attach:restart")
async def test_a_new_daemon_writes_nothing_twice_and_counts_from_the_beginning() -> None:
    async with open_house("ann") as house:
        await house.live("ann")
        with at(house, "ann") as person:
            await event(house, "attach")
            await until(lambda: str(person.pid) in house.tmux("ann", "show-options", "-v", KNOWN))
            await house.close()
            await house.start()
            await event(house, "adopt")
            with at(house, "ann") as other:
                # The second one is known: so the new daemon has looked.
                assert (await event(house, "attach", 2))["pid"] == str(other.pid)
            assert (await event(house, "attach-end"))["pid"] == str(other.pid)
        left = await event(house, "attach-end", 2)
        assert (left["pid"], left["cause"]) == (str(person.pid), "left")
        assert "elapsed" in left
        assert len(events(house, "attach")) == 2


@pytest.mark.requirement("logs:attach:restart")
async def test_a_new_daemon_tells_who_came_and_who_left_while_none_ran() -> None:
    async with open_house("ann") as house:
        await house.live("ann")
        with at(house, "ann") as first:
            await event(house, "attach")
            await until(lambda: str(first.pid) in house.tmux("ann", "show-options", "-v", KNOWN))
            await house.close()
        with at(house, "ann") as second:
            await until(lambda: second.tty in house.tmux("ann", "list-clients"), "the second")
            await until(lambda: str(first.pid) not in clients(house), "the first to be gone")
            await house.start()
            came = await event(house, "attach", 2)
            left = await event(house, "attach-end")
        assert (came["pid"], left["pid"]) == (str(second.pid), str(first.pid))
        assert (left["cause"], "elapsed" in left) == ("unwatched", False)


def listed(house: House, tty: str) -> bool:
    return tty in house.tmux("ann", "list-clients")


def clients(house: House) -> list[str]:
    return house.tmux("ann", "list-clients", "-F", "#{client_pid}").split()


@pytest.mark.requirement("logs:attach:restart")
async def test_a_session_that_ended_while_no_daemon_ran_has_nobody_left_in_it() -> None:
    async with open_house("ann") as house:
        session = await house.live("ann")
        with at(house, "ann") as person:
            await event(house, "attach")
            await until(lambda: str(person.pid) in house.tmux("ann", "show-options", "-v", KNOWN))
            await house.close()
            os.kill(session.pane[0], signal.SIGKILL)
            dead = "#{pane_dead}"
            await until(lambda: "1" in house.tmux("ann", "list-panes", "-F", dead), "its end")
            await house.start()
            left = await event(house, "attach-end")
        assert (left["pid"], left["cause"]) == (str(person.pid), "session-end")


@pytest.mark.requirement("logs:attach:any-way")
async def test_somebody_who_is_there_for_a_moment_is_told_of() -> None:
    async with open_house("ann") as house:
        await house.live("ann")
        for number in range(1, 6):
            person = attach(house, "ann")
            await until(functools.partial(listed, house, person.tty), poll_s=0.0)
            person.leave()
            left = await event(house, "attach-end", number)
            assert (left["tty"], left["cause"]) == (person.tty, "left")
        said = [line["tty"] for line in events(house, "attach")]
        assert said == [line["tty"] for line in events(house, "attach-end")]


@pytest.mark.requirement("logs:attach:any-way")
async def test_one_who_was_gone_before_anybody_could_look_is_told_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_house("ann") as house:
        session = await house.live("ann")
        await house.services.launcher.onlookers.ended(session.id)
        monkeypatch.setattr(onlookers, "LOST_S", 3600.0)
        heard: list[str] = []
        session.tmux.listen(heard.append)
        person = attach(house, "ann")
        await until(lambda: person.tty in heard, "tmux to tell")
        tty = person.tty
        person.leave()
        await until(lambda: "" in heard, "tmux to tell of the end")
        house.services.launcher.onlookers.watch(session)
        for name in heard:
            session.tmux._heard(name)
        left = await event(house, "attach-end", tty=tty)
        assert (left["elapsed"], left["cause"], "pid" in left) == ("0", "left", False)
        assert [line["tty"] for line in events(house, "attach")] == [tty]


@pytest.mark.requirement("logs:attach:any-way")
async def test_a_killed_control_client_is_made_again_without_a_request() -> None:
    async with open_house("ann") as house:
        session = await house.live("ann")
        first = session.tmux.control_pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: session.tmux.hears and session.tmux.control_pid != first, "another")
        with at(house, "ann"):
            await event(house, "attach")
        await event(house, "attach-end")


@pytest.mark.requirement("logs:attach:any-way")
async def test_clients_in_control_mode_are_nobody() -> None:
    async with open_house("ann") as house:
        await house.live("ann")
        sock = next(house.settings.sock_dir.glob("*demo-ann.sock"))
        program = subprocess.Popen(
            ["tmux", "-N", "-C", "-S", str(sock), "attach", "-t", "=demo-ann"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={"PATH": house.environ["PATH"]},
        )
        await until(lambda: str(program.pid) in clients(house), "the client")
        assert program.stdin is not None
        program.stdin.close()
        program.wait(10)
        with at(house, "ann") as person:
            assert (await event(house, "attach"))["pid"] == str(person.pid)
        await event(house, "attach-end")
        assert len(events(house, "attach")) == len(events(house, "attach-end")) == 1


@pytest.mark.requirement("logs:attach")
async def test_the_line_says_whether_the_session_was_woken_for_it() -> None:
    async with open_house("ann") as house:
        assert (await house.fleet.wake("ann", None)).woke
        assert events(house, "attach") == []
        with at(house, "ann"):
            assert (await event(house, "attach"))["woke"] == "true"
        assert not (await house.fleet.wake("ann", None)).woke
        with at(house, "ann"):
            assert (await event(house, "attach", 2))["woke"] == "false"
        await event(house, "attach-end", 2)


@pytest.mark.requirement("logs:attach:any-way")
async def test_what_a_screen_shows_is_no_news_of_people() -> None:
    async with open_house("ann") as house:
        session = await house.live("ann")
        fake = "%client-session-changed /dev/pts/99 $0 demo-ann"
        sent = await house.send("ann", f"{fake}\n{fake}\n%client-detached /dev/pts/99")
        await house.wait(sent.message_id, "seen")
        await until(lambda: fake in house.tmux("ann", "capture-pane", "-p", "-S", "-"), "it")
        for _ in range(20):
            assert fake in await session.tmux.capture(history_lines=100)
        with at(house, "ann") as person:
            assert (await event(house, "attach"))["pid"] == str(person.pid)
        await event(house, "attach-end")
        assert len(events(house, "attach")) == 1


@pytest.mark.requirement("logs:attach")
async def test_the_command_attaches_and_the_log_has_its_visit() -> None:
    async with open_house("ann") as house:
        pid, terminal = pty.fork()
        if pid == 0:
            try:
                argv = [sys.executable, "-m", "iapeer", "attach", "ann"]
                os.execve(argv[0], argv, {**house.environ, "TERM": "xterm"})  # noqa: S606
            finally:
                os._exit(127)
        person = Person(pid, terminal)
        try:
            came = await event(house, "attach")
            assert (came["pid"], came["woke"]) == (str(pid), "true")
            await pressed(person)
            assert (await event(house, "attach-end"))["cause"] == "left"
        finally:
            person.leave()
