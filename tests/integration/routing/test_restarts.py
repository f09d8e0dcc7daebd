"""The daemon goes, gently or by SIGKILL at the worst moment: nothing is lost, nothing doubled."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import Callable

import pytest

from iapeer.core.ids import new_message_id
from iapeer.sessions.process import is_alive
from iapeer.storage.ledger import messages
from iapeer.storage.ledger import sessions as rows
from iapeer.storage.ledger.offline import offline
from iapeer.storage.ledger.rows import NewMessage, NewSession, SessionRow
from iapeer.storage.paths import Paths
from iapeer.testing.daemon import TestDaemon, wait_until
from tests.integration.routing.house import House, open_house, until

anyio = pytest.mark.anyio
pytestmark = pytest.mark.real_tmux


@anyio
async def test_a_restart_adopts_the_session_and_goes_on_in_order() -> None:
    async with open_house("ann") as house:
        session = await house.live("ann")
        slow = await house.send("ann", f"HOLD {house.go}")
        await house.wait(slow.message_id, "seen")
        sent = [await house.send("ann", f"NOTHING\n{n}") for n in range(3)]
        await house.close()
        assert is_alive(*session.pane)
        house.go.touch()
        await house.start()
        for one in sent:
            row = await house.wait(one.message_id, "seen")
            assert (row.dup, row.attempt) == (False, 1)
        assert house.session("ann").id == session.id
        assert house.bodies("ann")[2:] == [f"NOTHING\n{n}" for n in range(3)]


@anyio
async def test_a_session_that_died_unwatched_is_buried_and_its_record_read_to_the_end() -> None:
    async with open_house("ann", misbehave="no_hook") as house:
        session = await house.live("ann")
        slow = await house.send("ann", f"HOLD {house.go}")
        await house.wait(slow.message_id, "seen")
        queued = await house.send("ann", "NOTHING\nread while nobody watched")
        lost = await house.send("ann", "NOTHING\nstill ours")
        assert (queued.state, lost.state) == ("landed", "held")
        await house.close()
        house.go.touch()
        await until(lambda: "NOTHING\nread while nobody watched" in house.bodies("ann"))
        await until(lambda: house.records("ann")[-1].get("op") == "end")
        os.kill(session.server[0], signal.SIGKILL)
        await until(lambda: not is_alive(*session.pane))
        await house.start()
        row = await house.wait(queued.message_id, "seen")
        assert (row.dup, row.attempt) == (False, 1)
        await house.wait(lost.message_id, "seen")
        assert house.bodies("ann").count("NOTHING\nread while nobody watched") == 1
        assert (await house.sessions())[0].end_cause


@anyio
async def test_an_unproven_message_of_a_session_that_died_unwatched_comes_back_marked() -> None:
    async with open_house("ann", misbehave="no_hook,no_transcript", evidence_s=30) as house:
        sent = await house.send("ann", "NOTHING\nunproven")
        await house.wait(sent.message_id, "landed")
        session = house.session("ann")
        await house.close()
        os.kill(session.pane[0], signal.SIGKILL)
        await until(lambda: not is_alive(*session.pane))
        house.launch_env("ann", "")
        await house.start()
        row = await house.wait(sent.message_id, "seen")
        assert (row.dup, row.attempt) == (True, 2)


@anyio
async def test_stopped_stays_stopped_over_a_restart() -> None:
    async with open_house("ann") as house:
        await house.live("ann")
        house.type("ann", "draft")
        await house.drawn("ann", "draft")
        sent = await house.send("ann", "NOTHING\nlater")
        await house.fleet.stop("ann", None)
        await house.close()
        await house.start()
        assert (await house.row(sent.message_id)).reason == "stopped"
        await asyncio.sleep(0.3)
        assert await house.live_rows() == []
        await house.fleet.start("ann", None)
        await house.wait(sent.message_id, "seen")


@pytest.mark.requirement("cli:send:offline")
@anyio
async def test_a_message_written_while_no_daemon_ran_is_delivered() -> None:
    async with open_house("ann") as house:
        uid = house.services.registry.snapshot().require("ann").uid
        await house.close()
        message_id = new_message_id()
        with offline(house.paths.ledger) as conn:
            messages.accept(conn, _message(message_id, uid), 1_790_000_000.0)
        await house.start()
        await house.wait(message_id, "seen")


@anyio
async def test_two_rows_that_both_claim_to_live_are_both_settled() -> None:
    """A row an older crash left behind: what it holds must come back, its token must end."""
    async with open_house("ann") as house:
        uid = house.services.registry.snapshot().require("ann").uid
        await house.close()
        message_id = new_message_id()
        with offline(house.paths.ledger) as conn:
            for n in range(2):
                rows.open_session(conn, _session(f"{uuid.uuid4()}", uid, house, n))
            older = rows.live_sessions(conn)[0].id
            messages.accept(conn, _message(message_id, uid), 1_790_000_000.0)
            messages.begin_attempt(conn, message_id, older, "paste", 1_790_000_000.0)
        await house.start()
        row = await house.wait(message_id, "seen")
        assert row.attempt == 2
        assert len(await house.live_rows()) == 1


def _session(session_id: str, uid: str, house: House, n: int) -> NewSession:
    return NewSession(
        id=session_id,
        uid=uid,
        runtime="demo",
        personality="ann",
        token_sha256=f"{n}" * 64,
        cwd=str(house.paths.peer_home("ann")),
        socket=str(house.settings.sock_dir / "tmux-iap-demo-ann.sock"),
        mode="fresh",
        started_at=1_790_000_000.0 + n,
    )


def _message(message_id: str, uid: str) -> NewMessage:
    return NewMessage(
        id=message_id,
        sender="api-op",
        sender_uid="",
        to_uid=uid,
        personality="ann",
        runtime="demo",
        body="NOTHING\nfrom another process",
        accepted_ts="2026-11-22T15:00:00+00:00",
        expires_at=4e9,
        path="cli",
        intelligence="absent",
    )


@anyio
async def test_a_runtime_that_lost_its_manifest_holds_its_mail_and_does_not_spin() -> None:
    async with open_house() as house:
        await house.close()
        house.runtime("odd", 'id = "odd"\n[launch]\nargv = ["cat"]\n[screen]\nready = ["^x"]\n')
        house.create("ann", runtime="odd")
        await house.start()
        call = asyncio.create_task(house.send("ann", "hello"))
        await until(lambda: house.lane("ann", "odd").phase == "booting")
        call.cancel()
        await house.close()
        manifest = house.settings.runtimes_dir / "odd.toml"
        text = manifest.read_text(encoding="utf-8")
        manifest.unlink()
        await house.start()
        await asyncio.sleep(1.0)
        log = house.paths.lifecycle_log.read_text(encoding="utf-8")
        assert log.count("lane-error") <= 8
        await house.close()
        manifest.write_text(text.replace('["^x"]', "[]"), encoding="utf-8")
        await house.start()
        (message_id,) = await _ids(house)
        await house.wait(message_id, "landed")


async def _ids(house: House) -> list[str]:
    return await house.services.ledger.read(
        lambda c: [str(v[0]) for v in c.execute("SELECT id FROM messages")]
    )


POINTS = [
    "launch.opened",
    "launch.born",
    "launch.ready",
    "delivery.journalled",
    "paste.before_paste",
    "paste.after_paste",
    "paste.after_enter",
    "delivery.handed_over",
    "delivery.landed",
]


@pytest.mark.parametrize(
    ("point", "evidence"),
    [(point, True) for point in POINTS] + [(p, False) for p in POINTS if p[:6] != "launch"],
)
def test_a_kill_at_any_point_loses_and_doubles_nothing(
    iapeer_daemons: Callable[..., TestDaemon], point: str, evidence: bool
) -> None:
    daemon = iapeer_daemons()
    daemon.create("ann")
    daemon.create("op", runtime="api")
    if not evidence:
        # Its record tells this test what it was shown, and the daemon nothing.
        env = daemon.root / "peers" / "ann" / ".iapeer" / "runtimes" / "demo"
        env.mkdir(mode=0o700, parents=True, exist_ok=True)
        (env / "launch.env").write_text("DEMO_MISBEHAVE=no_hook\n", encoding="utf-8")
        _blind(daemon)
    daemon.start(IAPEER_FAULT=point)
    message_id = _send_into_the_dark(daemon)
    assert daemon.process is not None
    assert daemon.process.wait(timeout=60) == -signal.SIGKILL
    daemon.start()
    daemon.wait_state(message_id, "landed", "seen", timeout_s=30)
    if evidence:
        after = daemon.send("ann", "NOTHING\nafter", "api-op")["message_id"]
        daemon.wait_state(after, "seen", timeout_s=30)
    wait_until(lambda: any("first" in p for p in daemon.prompts("ann")), 20)
    shown = [p for p in daemon.prompts("ann") if "first" in p]
    assert shown, "lost"
    assert len(shown) == 1 or all('dup="maybe"' in p for p in shown[1:])
    if evidence:
        assert len(shown) == 1
    ready = [r for r in _rows(daemon) if r.ready_at is not None]
    assert len(ready) <= (2 if point == "launch.ready" else 1)
    assert len([r for r in _rows(daemon) if r.ended_at is None]) == 1
    alive = [pair for pair in daemon.session_processes() if is_alive(*pair)]
    assert len(alive) == 2


def _blind(daemon: TestDaemon) -> None:
    """A demo whose record the daemon does not know: neither hook nor transcript prove anything."""
    from iapeer.runtimes.catalog import SHIPPED

    text = (SHIPPED / "demo.toml").read_text(encoding="utf-8")
    head, _, rest = text.partition('[evidence]\ntranscript = "{state_dir}/{session_id}.jsonl"')
    assert rest
    tail = rest[rest.index("[tested]") :]
    head = head.replace('"{transcript}"', '"{state_dir}/{session_id}.jsonl"')
    folder = daemon.root / "runtimes"
    folder.mkdir(mode=0o700, exist_ok=True)
    blind = head + "[evidence]\nprompt_hook = true\n\n" + tail
    (folder / "demo.toml").write_text(blind, encoding="utf-8")


def _send_into_the_dark(daemon: TestDaemon) -> str:
    """Send; the daemon dies under the call, so the ledger tells which message it was."""
    from iapeer.client import hot

    try:
        return str(daemon.send("ann", "NOTHING\nfirst", "api-op")["message_id"])
    except (hot.DaemonUnreachable, hot.BadAnswer, OSError):
        from iapeer.storage.ledger.offline import offline_read

        with offline_read(Paths(daemon.root).ledger) as conn:
            ((found,),) = conn.execute("SELECT id FROM messages").fetchall()
        return str(found)


def _rows(daemon: TestDaemon) -> list[SessionRow]:
    from iapeer.storage.ledger.offline import offline_read

    with offline_read(Paths(daemon.root).ledger) as conn:
        return rows.all_sessions(conn)
