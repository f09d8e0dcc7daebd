"""Teams of real CLIs: Claude Code and Codex talk to each other through our daemon."""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from iapeer.testing.agents import AgentDaemon, SimulatedModel
from iapeer.testing.daemon import wait_until
from iapeer.testing.model_server import Call, RecordedRequest, Rule, Say, Script
from tests.real.crew import CALL, NASTY, Crew, body_of, gate, newest

PASSES = 20


def passing(number: int) -> Rule:
    """Return what a player does who gets the baton with this number."""
    if number == PASSES:
        return Rule(rf"\bBATON {number}\b", (Say("caught"),))
    to = "ann" if number % 2 else "cody"
    handed = {"personality": to, "message": f"BATON {number + 1}", "topic": "relay"}
    return Rule(rf"\bBATON {number}\b", (Call("send_to_peer", handed), Say("passed")))


def meeting(folder: Path, tool: str, mine: str) -> Rule:
    """Return what a peer does that is told `MEET <peer>`: wait, send in mid-turn, wait, be done."""
    sent = {"personality": "$1", "message": f"from inside {mine}"}
    return Rule(
        rf"\bMEET (\w+) AS {mine}\b",
        (
            Call(tool, gate(folder / "go", tool)),
            Call("send_to_peer", sent),
            Call(tool, gate(folder / "end", tool)),
            Say("done"),
        ),
    )


@pytest.fixture
def rules(tmp_path: Path) -> Script | Iterable[Rule]:
    return (
        *(passing(number) for number in range(1, PASSES + 1)),
        meeting(tmp_path, "exec_command", "cody"),
        meeting(tmp_path, "exec_command", "cora"),
        meeting(tmp_path, "Bash", "ann"),
        CALL,
    )


@pytest.fixture
def crew(real_daemon: AgentDaemon, model: SimulatedModel) -> Crew:
    real_daemon.create("cody", runtime="codex")
    real_daemon.create("me", runtime="api")
    return Crew(real_daemon, model)


def test_codex_asks_claude_and_gets_the_answer_both_exactly(crew: Crew) -> None:
    crew.daemon.create("ann", runtime="claude")
    crew.daemon.start()
    answer = json.dumps({"personality": "cody", "message": NASTY}, ensure_ascii=False)
    question = json.dumps({"personality": "ann", "message": f"CALL send_to_peer {answer}"})
    crew.wait(crew.send("cody", f"CALL send_to_peer {question}"))
    asked = crew.wait_asked("CALL send_to_peer", "claude")
    assert "cody" in newest(asked).split("\n")[0]
    back = crew.wait_asked("/help is no command\n")
    texts = [text for text in back.user_texts if text.startswith('<iap from="ann"')]
    found = crew.daemon.ask("GET", "/api/v1/messages")["messages"]
    (stored,) = [row["id"] for row in found if row["sender"] == "claude-ann"]
    assert texts == [crew.text_of(stored)]
    crew.wait_ends(stored, "done")
    assert crew.daemon.trace(stored)["sender"] == "claude-ann"


def test_claude_and_codex_pass_a_baton_twenty_times_in_order(crew: Crew) -> None:
    crew.daemon.create("ann", runtime="claude")
    crew.daemon.start()
    crew.wait(crew.send("cody", "BATON 1", topic="relay"))
    runtime = "codex" if PASSES % 2 else "claude"
    wait_until(
        lambda: crew.told(f"BATON {PASSES}", runtime),
        timeout_s=60,
        reason=f"the last pass: {crew.story()}\n{crew.log()}",
    )
    passes = [request for request in crew.model.requests if is_pass(request)]
    caught = [body_of(newest(request)) for request in passes]
    assert caught == [f"BATON {number}" for number in range(1, PASSES + 1)]
    protocols = [request.protocol for request in passes]
    assert protocols == ["responses", "messages"] * (PASSES // 2)
    found = crew.daemon.ask("GET", "/api/v1/messages?limit=100")["messages"]
    assert len(found) == PASSES
    for message in found:
        crew.wait(message["id"])


def is_pass(request: RecordedRequest) -> bool:
    ask = request.ask
    starts = ask is not None and request.has_tools and ask.rounds == 0
    return starts and body_of(newest(request)).startswith("BATON")


@pytest.mark.parametrize(
    ("other", "runtime"), [("cora", "codex"), ("ann", "claude")], ids=["codex", "claude"]
)
def test_two_that_send_to_each_other_in_mid_turn_do_not_block_each_other(
    crew: Crew, tmp_path: Path, other: str, runtime: str
) -> None:
    crew.daemon.create(other, runtime=runtime)
    crew.daemon.start()
    orders = [("cody", f"MEET {other} AS cody"), (other, f"MEET cody AS {other}")]
    with ThreadPoolExecutor(2) as pool:
        begun = list(pool.map(lambda order: crew.send(*order), orders))
    for sent in begun:
        crew.wait(sent)
    (tmp_path / "go").touch()
    # Both have the answer of their call while both turns still run.
    pair = (crew.wait_result("cody"), crew.wait_result(other, runtime))
    assert [crew.ends(sent) for sent in begun] == [[""], [""]]
    for answer in pair:
        assert answer["ok"] is True, answer
        assert answer["state"] in {"landed", "seen", "held"}, answer
    (tmp_path / "end").touch()
    for sent in begun:
        crew.wait_ends(sent, "done")
    crew.wait(pair[0]["message_id"])
    crew.wait(pair[1]["message_id"])
    assert crew.told("from inside cody", runtime) == 1
    assert crew.told(f"from inside {other}") == 1
