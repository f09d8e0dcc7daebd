from __future__ import annotations

from typing import Any

from .conftest import FakeDaemon, Run

ID = "k3vq7m2xd4ta"


def step(at: float, event: str, state: str, **more: Any) -> dict[str, Any]:
    return {"at": at, "event": event, "state": state, **more}


STORY: dict[str, Any] = {
    "id": ID,
    "sender": "demo-ann",
    "recipient": "demo-bob",
    "state": "seen",
    "reason": "",
    "topic": "deploy",
    "length": 12,
    "dup": True,
    "accepted_ts": "2026-11-22T15:00:00+00:00",
    "steps": [
        step(0.0, "accept", "accepted"),
        step(1.0, "hand_over", "in_flight", door="paste", attempt=1),
        step(2.0, "see", "seen", evidence="transcript@7"),
        step(4.0, "return", "accepted", reason="session died"),
        step(5.0, "hand_over", "in_flight", door="paste", attempt=2),
        step(6.5, "see", "seen", evidence="hook", attempt=2),
    ],
    "turns": [
        {"attempt": 1, "seen_at": 2.0, "end": "died", "ended_at": 3.0},
        {"attempt": 2, "seen_at": 6.5, "end": "", "ended_at": None},
    ],
    "answered_by": "abcdefghijkl",
    "altered": 3,
    "a_key_of_a_newer_daemon": 1,
}


def test_a_story_is_told_in_the_order_it_happened(daemon: FakeDaemon, run: Run) -> None:
    daemon.on("GET", f"/api/v1/messages/{ID}", {"ok": True, "message": STORY})
    assert run("trace", ID).out == (
        f"message {ID}: demo-ann -> demo-bob\n"
        "  12 characters, topic deploy\n"
        "  accepted 2026-11-22T15:00:00+00:00\n"
        "  00:00:00.000  accepted\n"
        "  00:00:01.000  handed to the runtime (door paste)\n"
        "  00:00:02.000  seen by the reader (proof: transcript@7)\n"
        "  00:00:03.000  the reader's session died in this turn\n"
        "  00:00:04.000  given back: it may be shown a second time: session died\n"
        "  00:00:05.000  handed to the runtime (door paste, attempt 2)\n"
        "  00:00:06.500  seen by the reader (attempt 2, proof: hook)\n"
        "  its reader is still at work on it\n"
        "  answered by message abcdefghijkl\n"
        "  3 characters were altered, to be safe in a terminal\n"
        "  it may have been shown twice, and is marked so\n"
        "now seen\n"
    )


def test_the_answer_of_an_older_daemon_is_told_as_well(daemon: FakeDaemon, run: Run) -> None:
    new = ("turns", "answered_by", "altered", "a_key_of_a_newer_daemon")
    old = {key: value for key, value in STORY.items() if key not in new}
    daemon.on("GET", f"/api/v1/messages/{ID}", {"ok": True, "message": old})
    lines = run("trace", ID).out.splitlines()
    assert lines[-1] == "now seen"
    assert not any("turn" in line or "answered" in line for line in lines)


def test_a_query_is_escaped_on_its_way_to_the_daemon(daemon: FakeDaemon, run: Run) -> None:
    path = "/api/v1/messages?limit=50&grep=a+%26%C3%A9%0A"
    daemon.on("GET", path, {"ok": True, "messages": []})
    assert run("messages", "--grep", "a &é\n").out == "no messages\n"


def test_what_a_peer_wrote_can_not_reach_the_terminal(daemon: FakeDaemon, run: Run) -> None:
    line = {
        "id": ID,
        "at": 0.0,
        "sender": "demo-ann",
        "recipient": "demo-bob",
        "state": "held",
        "reason": "busy",
        "topic": "\x1b[2J",
        "length": 5,
        "dup": True,
        "purged": False,
        "quote": "hi \x9b there",
    }
    daemon.on("GET", "/api/v1/messages?limit=50", {"ok": True, "messages": [line]})
    assert run("messages").out == (
        f"1970-01-01 00:00:00  {ID}  demo-ann -> demo-bob  held: busy, maybe twice"
        "  [\\x1b[2J]  5  hi \\x9b there\n"
    )


def test_one_letter_that_stays_makes_the_status_1(daemon: FakeDaemon, run: Run) -> None:
    results = [
        {"id": ID, "new_id": "abcdefghijkl"},
        {"id": "b" * 12, "code": "stopped", "message": "it is stopped", "hint": "start it"},
    ]
    letters = [{"id": ID}, {"id": "b" * 12}]
    daemon.on("GET", "/api/v1/dead-letters?limit=1000&peer=bob", {"ok": True, "messages": letters})
    daemon.on("POST", "/api/v1/dead-letters/redeliver", {"ok": True, "results": results})
    done = run("dead-letter", "redeliver", "--all", "--peer", "bob")
    assert (done.status, done.out) == (1, f"{ID} redelivered as abcdefghijkl\n")
    assert done.err == (
        f"iapeer dead-letter redeliver: {'b' * 12}: it is stopped\nhint: start it\n"
    )
    assert daemon.asked[-1].body == {"ids": [ID, "b" * 12]}
