"""A program with a server of its own beside it: both ends are the session's end."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from iapeer.sessions.process import is_alive
from tests.integration.routing.house import House, open_house, until

pytestmark = [pytest.mark.anyio, pytest.mark.real_tmux]

SERVER = """\
import os, socket, sys, time
if "refuse" in os.environ.get("SERVER_DOES", ""):
    print("the server will not start", flush=True)
    time.sleep(0.3)  # tmux loses the words of some programs that end at once
    sys.exit(1)
listener = socket.socket(socket.AF_UNIX)
time.sleep(0.3)
listener.bind(sys.argv[1])
listener.listen()
time.sleep(600)
"""

MANIFEST = f"""\
id = "demo"
doors = ["paste"]
[launch]
argv = ["{{python}}", "-P", "-m", "iapeer.apps.demo_agent"]
server_argv = ["{{python}}", "-c", '''{SERVER}''', "{{endpoint}}"]
server_takes = ["-c"]
endpoint = "unix"
boot_deadline_s = 15.0
[launch.env]
DEMO_TRANSCRIPT = "{{transcript}}"
THE_ENDPOINT = "{{endpoint}}"
[screen]
prompt_glyphs = ["❯"]
paste_patterns = ["[Pasted text"]
ready = ["^❯"]
[evidence]
transcript = "{{state_dir}}/{{session_id}}.jsonl"
[[evidence.records]]
match = {{ type = "user" }}
kind = "user"
text = "text"
"""


def _house(house: House) -> None:
    house.runtime("demo", MANIFEST)


def _sockets(house: House) -> list[Path]:
    return sorted(house.settings.sock_dir.glob("srv-*.sock"))


async def test_it_is_up_before_the_program_and_gone_with_it() -> None:
    async with open_house("ann", before=_house) as house:
        session = await house.live("ann")
        assert session.aux is not None
        assert is_alive(*session.aux)
        assert [str(path) for path in _sockets(house)] == [session.endpoint]
        environ = Path(f"/proc/{session.pane[0]}/environ").read_bytes()
        assert f"THE_ENDPOINT={session.endpoint}".encode() in environ
        await house.fleet.stop("ann", None)
        assert not is_alive(*session.aux)
        assert _sockets(house) == []
        await house.nothing_left()


@pytest.mark.requirement("launch:own-server")
async def test_its_death_is_the_sessions_and_the_next_message_brings_both_back() -> None:
    async with open_house("ann", before=_house) as house:
        first = await house.live("ann")
        assert first.aux is not None
        os.kill(first.aux[0], signal.SIGKILL)
        await until(lambda: house.lane("ann").phase == "asleep")
        assert not is_alive(*first.pane)
        second = await house.live("ann")
        assert second.aux is not None
        assert second.aux != first.aux
        assert [str(path) for path in _sockets(house)] == [second.endpoint]


async def test_a_new_daemon_adopts_both() -> None:
    async with open_house("ann", before=_house) as house:
        before = await house.live("ann")
        await house.close()
        await house.start()
        after = await house.live("ann")
        assert (after.id, after.aux, after.endpoint) == (before.id, before.aux, before.endpoint)


async def test_a_server_that_died_unwatched_is_no_session_to_adopt() -> None:
    async with open_house("ann", before=_house) as house:
        before = await house.live("ann")
        assert before.aux is not None
        await house.close()
        os.kill(before.aux[0], signal.SIGKILL)
        await house.start()
        after = await house.live("ann")
        assert after.id != before.id
        assert not is_alive(*before.pane)


async def test_a_server_that_does_not_start_is_told_with_its_last_words() -> None:
    async with open_house("ann", before=_house) as house:
        house.launch_env("ann", "SERVER_DOES=refuse\n")
        assert (await house.send("ann")).state == "held"
        log = house.paths.lifecycle_log
        await until(lambda: "its own server ended during boot" in log.read_text("utf-8"))
        assert "the server will not start" in log.read_text("utf-8")
        assert _sockets(house) == []
