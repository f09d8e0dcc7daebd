"""From a death to the page that tells it: verdicts, last words, reports, and the two commands."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from iapeer.core.ids import token_digest
from iapeer.sessions.canary.keeper import Keeper
from iapeer.sessions.forensics.oom import counter_of
from iapeer.sessions.process import wait_gone
from iapeer.storage.ledger import messages, postmortems
from iapeer.storage.ledger.offline import offline, offline_read
from iapeer.storage.ledger.rows import NewMessage
from tests.integration.sessions.canary_rig import WHEN_ARMED, Body, Rig, open_rig, until

pytestmark = [pytest.mark.anyio, pytest.mark.real_tmux]

BODY = "Move the gold to vault nine at midnight, and tell nobody about it."
TOKEN = "0f3c9a55" * 8


def _python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", "-c", code)


def _plant(rig: Rig, body: Body) -> None:
    """Put a message and a token where a careless report would find them."""
    rig.plant(
        "UPDATE sessions SET token_sha256 = ?, transcript = ? WHERE id = ?",
        token_digest(TOKEN),
        str(rig.base / "t.jsonl"),
        body.session_id,
    )
    record = {"type": "user", "text": BODY, "token": TOKEN}
    (rig.base / "t.jsonl").write_text(json.dumps(record) + "\n", encoding="utf-8")
    now = time.time()
    new = NewMessage(
        id="abcdefghijkl",
        sender="api-op",
        sender_uid="uid-op",
        to_uid="uid-ann",
        personality="ann",
        runtime="demo",
        body=BODY,
        accepted_ts="2026-11-22T15:00:00+00:00",
        expires_at=now + 1000,
        path="cli",
        intelligence="absent",
    )
    with offline(rig.paths.ledger) as conn:
        messages.accept(conn, new, now)
        conn.execute(
            "INSERT INTO history (message_id, at, state, event, reason, door, attempt, session_id,"
            " evidence) VALUES ('abcdefghijkl', ?, 'landed', 'land', '', 'paste', 1, ?, '')",
            (now, body.session_id),
        )


def _iapeer(rig: Rig, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "iapeer", *words],
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=60,
        env={
            "PATH": os.defpath,
            "HOME": str(rig.base),
            "IAPEER_ROOT": str(rig.paths.root),
            "IAPEER_TEST_SANDBOX": "1",
            "LC_ALL": "C.UTF-8",
            **{k: v for k, v in os.environ.items() if k == "PYTHONPATH"},
        },
    )


@pytest.mark.requirement("forensics:private", "forensics:verbs")
async def test_the_last_words_are_kept_without_the_message_and_the_token() -> None:
    shown = f"print({('> ' + BODY)!r}); print('key {TOKEN} taken'); print('fatal: no money')"
    code = f"import sys, time; sys.stdin.readline(); {shown}; time.sleep(0.3); sys.exit(7)"
    async with open_rig() as rig:
        body = await rig.begin(*_python(code))
        _plant(rig, body)
        await body.tmux.keys("Enter")
        await rig.dead(body)
        await rig.end(body, "program-exit")
        with offline_read(rig.paths.ledger) as conn:
            row = postmortems.of_session(conn, body.session_id)
        assert row is not None
        assert (row.cause, row.confidence, row.status) == ("exit", "sure", 7)
        assert "fatal: no money" in row.words
        told = await asyncio.to_thread(_iapeer, rig, "postmortem", body.session_id[:8])
        assert told.returncode == 0, told.stderr
        assert "fatal: no money" in told.stdout
        assert "abcdefghijkl land -> landed" in told.stdout
        assert "exit (sure): its program left with exit status 7" in told.stdout
        for text in (row.words, told.stdout):
            assert "gold" not in text
            assert "vault" not in text
            assert TOKEN not in text
            assert "[message]" in text


@pytest.mark.requirement("forensics:private")
async def test_a_report_has_kinds_and_ids_and_no_words() -> None:
    async with open_rig() as rig:
        body = await rig.begin()
        _plant(rig, body)
        rig.paths.pane_log("demo-ann").write_text(
            f"ready\n{BODY}\nkey {TOKEN}\nfatal: no money\n", encoding="utf-8"
        )
        os.kill(body.server[0], signal.SIGKILL)
        report = await rig.report()
        assert "type=user (" in report
        assert "abcdefghijkl land -> landed attempt 1" in report
        assert "fatal: no money" in report
        assert "gold" not in report
        assert TOKEN not in report
        assert "boot " in report


@pytest.mark.requirement("forensics:verbs")
async def test_a_death_nobody_has_looked_at_yet_is_listed_from_its_record() -> None:
    """The daemon is down: the hook has written its line, and no verdict is in the ledger."""
    async with open_rig() as rig:
        assert (await asyncio.to_thread(_iapeer, rig, "deaths")).stdout == "no deaths\n"
        body = await rig.begin()
        os.kill(body.pane[0], signal.SIGTERM)
        await rig.line(body)
        listed = await asyncio.to_thread(_iapeer, rig, "deaths", "--json")
        (told,) = json.loads(listed.stdout)
        assert (told["id"], told["identity"]) == (body.session_id[:8], "demo-ann")
        assert (told["cause"], told["signal"], told["watched"]) == ("signal", 15, False)
        assert "words" not in told
        # The next daemon finds the dead pane, and says the same.
        scene = await rig.end(body, "died unwatched", seen=False)
        assert scene is not None
        with offline_read(rig.paths.ledger) as conn:
            (row,) = postmortems.newest(conn)
        assert (row.cause, row.signal, row.watched) == ("signal", 15, False)
        plain = await asyncio.to_thread(_iapeer, rig, "deaths")
        assert plain.stdout.split("\t")[2:4] == ["demo-ann", "signal (sure)"]


async def test_names_that_nobody_has_are_refused_with_a_hint() -> None:
    async with open_rig() as rig:
        body = await rig.begin(*_python(f"{WHEN_ARMED}raise SystemExit(1)"))
        await rig.dead(body)
        await rig.end(body, "program-exit")
        for words in (("deaths", "nobody"), ("postmortem", "nobody"), ("postmortem", "ffffffff")):
            done = await asyncio.to_thread(_iapeer, rig, *words)
            assert done.returncode != 0
            assert done.stdout == ""
            assert "iapeer" in done.stderr
        assert (await asyncio.to_thread(_iapeer, rig, "deaths", "--limit", "0")).returncode == 2


async def test_last_words_that_speak_of_a_quota_are_understood() -> None:
    # Said well before the end: tmux 3.3a loses the words of some programs that end at once.
    words = "print('Loading'); print('usage limit reached, resets 3pm', flush=True)"
    async with open_rig() as rig:
        body = await rig.begin(*_python(f"{words}\n{WHEN_ARMED}raise SystemExit(1)"))
        await rig.dead(body)
        await rig.end(body, "program-exit")
        told = json.loads(
            (
                await asyncio.to_thread(_iapeer, rig, "postmortem", body.session_id[:8], "--json")
            ).stdout
        )
        assert (told["cause"], told["status"]) == ("quota", 1)
        assert told["words"] == ["Loading", "usage limit reached, resets 3pm"]
        assert told["next_session"] is None


@pytest.mark.requirement("forensics:cause")
async def test_a_program_that_never_got_ready_crashed_at_boot() -> None:
    async with open_rig() as rig:
        body = await rig.begin(*_python(f"{WHEN_ARMED}raise SystemExit(2)"), ready=False)
        await rig.dead(body)
        await rig.end(body, "boot:exited")
        row = await rig.verdict(body, is_it=lambda row: True)
        assert (row.what, row.cause, row.status) == ("boot", "boot_crash", 2)


async def test_a_session_of_an_earlier_run_of_the_host_died_of_its_reboot() -> None:
    async with open_rig() as rig:
        body = await rig.begin(armed=False)
        rig.plant("UPDATE sessions SET boot_id = 'before' WHERE id = ?", body.session_id)
        os.kill(body.server[0], signal.SIGKILL)
        await wait_gone(*body.server, 5.0)
        await rig.end(body, "died unwatched", seen=False)
        row = await rig.verdict(body, is_it=lambda row: True)
        assert (row.cause, row.confidence) == ("host_reboot", "sure")
        assert rig.lines() == []


async def test_what_a_recorder_finds_is_added_to_what_the_daemon_knew() -> None:
    async with open_rig() as rig:
        body = await rig.begin()
        os.kill(body.server[0], signal.SIGKILL)
        await wait_gone(*body.server, 5.0)
        await rig.end(body, "server-gone")
        row = await rig.verdict(body, is_it=lambda row: bool(row.report))
        assert (row.cause, row.watched) == ("server_killed", True)
        assert "vanished without a word" in row.why


@pytest.mark.requirement("forensics:recorder:rearm")
async def test_the_keeper_finds_lost_recorders() -> None:
    async with open_rig() as rig:
        body = await rig.begin()
        recorder = rig.mark(body).recorder
        assert recorder is not None
        os.kill(recorder[0], signal.SIGKILL)
        await wait_gone(*recorder, 5.0)
        states = []

        async def guard(_session: object) -> None:
            states.append(await rig.canaries.ensure(body.watched))

        from iapeer.core.settings import make_settings

        settings = make_settings({"HOME": str(rig.base)}, flags={"root": rig.paths.root})
        keeper = Keeper(rig.paths, settings, lambda: [body], guard)  # type: ignore[list-item]
        await keeper.look()
        await keeper.look()
        assert states == ["spawned", "already"]
        keeper.start()
        await keeper.close()


async def test_pane_logs_are_private_and_hold_what_the_pane_prints() -> None:
    async with open_rig("r #%d") as rig:
        body = await rig.begin(*_python("import sys; print(sys.stdin.readline()); input()"))
        path = rig.paths.pane_log("demo-ann")
        await body.tmux.keep_output(path)
        await body.tmux.keys("h", "i", "Enter")
        await until(lambda: path.exists() and b"hi" in path.read_bytes())
        assert path.stat().st_mode & 0o777 == 0o600


@contextlib.contextmanager
def _small_cgroup(limit: int) -> Iterator[Path]:
    """Make a cgroup that may use little memory; skip, and say why, where that is not allowed."""
    counter = Path(counter_of(os.getpid()).path)
    parent = counter.parent
    if not counter.name:
        pytest.skip("this process is in no cgroup that counts kills for want of memory")
    group = parent / f"iapeer-test-{uuid.uuid4().hex[:8]}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made below {parent}: {error.strerror}")
    try:
        name = "memory.limit_in_bytes" if counter.name == "memory.oom_control" else "memory.max"
        try:
            (group / name).write_text(str(limit), encoding="ascii")
        except OSError as error:
            pytest.skip(f"{name} can't be set: {error.strerror}")
        yield group
    finally:
        with contextlib.suppress(OSError):
            group.rmdir()


@pytest.mark.requirement("forensics:cause")
async def test_a_program_that_the_kernel_killed_for_memory_is_told_so() -> None:
    with _small_cgroup(48 << 20) as group:
        async with open_rig() as rig:
            code = "import sys; sys.stdin.readline(); x = b'x' * (512 << 20); print(len(x))"
            body = await rig.begin(*_python(code), armed=False)
            for pid in (body.server[0], body.pane[0]):
                (group / "cgroup.procs").write_text(str(pid), encoding="ascii")
            assert await rig.canaries.ensure(body.watched) == "spawned"
            await body.tmux.keys("Enter")
            await rig.dead(body)
            await rig.end(body, "program-exit")
            row = await rig.verdict(body, is_it=lambda row: True)
            assert (row.signal, row.cause) == (9, "oom")
            assert [line.signal for line in rig.lines()] == [9]
        await until(lambda: not (group / "cgroup.procs").read_text(encoding="ascii"))
