from __future__ import annotations

import json
from typing import Any

import pytest

from iapeer.client import hot
from iapeer.core import env
from tests.integration.daemon.support import ALICE_TOKEN, BODY, Edge

pytestmark = pytest.mark.anyio
SEND = {"to": "bob", "message": BODY}
TOKEN = {"X_IAPeer_Token": ALICE_TOKEN}

OPERATOR: list[tuple[str, str, Any]] = [
    ("GET", "/api/v1/peers", None),
    ("GET", "/api/v1/status", None),
    ("GET", "/api/v1/messages/abcdefghijkl", None),
    ("POST", "/api/v1/peers/bob/stop", {}),
    ("POST", "/api/v1/peers/bob/start", {}),
    ("POST", "/api/v1/peers/bob/wake", {"runtime": "codex"}),
    ("POST", "/api/v1/peers/bob/remove", {"force": True}),
    ("POST", "/api/v1/peers/bob/rename", {"to": "robert"}),
    ("GET", "/api/v1/messages", None),
    ("GET", "/api/v1/dead-letters", None),
    ("POST", "/api/v1/dead-letters/redeliver", {"ids": ["abcdefghijkl"]}),
    ("POST", "/api/v1/dead-letters/drop", {"ids": ["abcdefghijkl"]}),
]


@pytest.mark.requirement("caller:account", "daemon:log:calls")
async def test_send_on_the_unix_socket_takes_the_word_of_our_own_account_and_logs_it(
    edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    body = SEND | {"from": "claude-bob", "key": "k", "topic": "t", "attachments": ["/a"]}
    status, answer = await edge.call("POST", "/api/v1/send", body)
    assert (status, answer["ok"], answer["state"]) == (200, True, "landed")
    (sent,) = edge.postman.sent
    assert (sent.caller, sent.path, sent.key, sent.draft.topic) == ("claude-bob", "http", "k", "t")
    (line,) = [r.getMessage() for r in caplog.records if "event=call" in r.getMessage()]
    assert "proof=uid" in line
    assert "sender=claude-bob" in line


@pytest.mark.requirement("caller:token")
async def test_a_token_decides_on_both_listeners_and_nothing_may_disagree(edge: Edge) -> None:
    for body in (SEND, SEND | {"from": "claude-alice"}):
        assert (await edge.call("POST", "/api/v1/send", body, **TOKEN))[0] == 200
        assert (await edge.tcp("POST", "/api/v1/send", body, **TOKEN))[0] == 200
    assert {sent.caller for sent in edge.postman.sent} == {"claude-alice"}
    for body, headers in (
        (SEND | {"from": "claude-bob"}, TOKEN),
        (SEND, TOKEN | {"X_IAPeer_Identity": "claude-bob"}),
        (SEND | {"from": "claude-alice"}, TOKEN | {"X_IAPeer_Identity": "claude-bob"}),
    ):
        status, answer = await edge.call("POST", "/api/v1/send", body, **headers)
        assert (status, answer["error"]["code"]) == (403, "caller")
        assert (await edge.tcp("POST", "/api/v1/send", body, **headers))[0] == 403
    assert len(edge.postman.sent) == 4


async def test_a_wrong_token_is_refused_even_where_none_would_do(edge: Edge) -> None:
    body = SEND | {"from": "claude-bob"}
    status, answer = await edge.call("POST", "/api/v1/send", body, X_IAPeer_Token="wrong")
    assert (status, answer["error"]["code"]) == (401, "unauthorized")
    assert edge.postman.sent == []


@pytest.mark.requirement("caller:tcp")
async def test_tcp_without_a_token_sends_for_nobody(edge: Edge) -> None:
    for headers in ({}, {"X_IAPeer_Identity": "claude-bob"}, {"X_IAPeer_Token": ""}):
        status, _headers, answer = await edge.tcp("POST", "/api/v1/send", SEND, **headers)
        assert (status, answer["error"]["code"]) == (403, "caller")
    assert edge.postman.sent == []


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (SEND, 403, "caller"),
        (SEND | {"from": "claude-stranger"}, 403, "caller"),
        (SEND | {"from": "claude-bob", "surprise": 1}, 400, "invalid_input"),
        (SEND | {"from": "claude-bob", "to": "nobody"}, 404, "unknown_peer"),
        (SEND | {"from": "claude-bob", "to": "flooded"}, 429, "queue_full"),
        (SEND | {"from": "claude-bob", "to": "crash"}, 500, "internal"),
        (b"{", 400, "invalid_input"),
        (b"\xff", 400, "invalid_input"),
        (b'{"to":"bob","message":"\\ud800","from":"claude-bob"}', 400, "invalid_input"),
        ([], 400, "invalid_input"),
    ],
)
async def test_every_refusal_has_one_shape(
    edge: Edge, body: object, status: int, code: str
) -> None:
    got, answer = await edge.call("POST", "/api/v1/send", body)
    assert (got, answer["error"]["code"]) == (status, code)
    assert answer["ok"] is False
    assert set(answer["error"]) == {"code", "message", "hint", "retry_after_s"}
    assert BODY not in json.dumps(answer)
    assert edge.postman.sent == []


async def test_a_body_that_does_not_call_itself_json_is_refused(edge: Edge) -> None:
    status, headers, answer = await edge.tcp(
        "POST", "/api/v1/send", SEND, **TOKEN, Content_Type="text/plain"
    )
    assert (status, answer["error"]["code"]) == (415, "media_type")
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize(("method", "path", "body"), OPERATOR)
async def test_operator_calls_are_refused_over_tcp_whatever_is_shown(
    edge: Edge, method: str, path: str, body: Any
) -> None:
    for headers in ({}, TOKEN, {"X_IAPeer_Identity": "claude-bob"}):
        status, _headers, answer = await edge.tcp(method, path, body, **headers)
        assert (status, answer["error"]["code"]) == (403, "forbidden")
    assert edge.fleet.calls == []
    assert edge.archive.calls == []


async def test_operator_calls_reach_the_fleet_from_the_unix_socket(edge: Edge) -> None:
    answers = [await edge.call(method, path, body) for method, path, body in OPERATOR]
    assert [status for status, _ in answers] == [200, 200, 404, *[200] * 9]
    assert answers[0][1]["peers"][0]["personality"] == "alice"
    assert answers[1][1]["status"] == {"live": 0}
    assert answers[5][1]["attach"]["session"] == "claude-bob"
    assert edge.fleet.calls == [
        ("stop", "bob", None),
        ("start", "bob", None),
        ("wake", "bob", "codex"),
        ("remove", "bob", True),
        ("rename", "bob", "robert"),
    ]
    status, answer = await edge.call("POST", "/api/v1/peers/bob/remove")
    assert (status, answer["error"]["code"]) == (409, "peer_live")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/v1/peers/B%0Ab/stop", {}),
        ("POST", "/api/v1/peers/bob/wake", {"runtime": "../x"}),
        ("POST", "/api/v1/peers/bob/rename", {"to": "Bad Name"}),
        ("POST", "/api/v1/peers/bob/remove", {"force": "yes"}),
        ("GET", "/api/v1/messages/short", None),
    ],
)
async def test_bad_names_never_reach_the_fleet(
    edge: Edge, method: str, path: str, body: Any
) -> None:
    status, answer = await edge.call(method, path, body)
    assert (status, answer["error"]["code"]) == (400, "invalid_input")
    assert edge.fleet.calls == []


async def test_the_prompt_hook_needs_a_session_token_and_takes_the_session_from_it(
    edge: Edge,
) -> None:
    hook = {"prompt": "<iap ...>", "session_id": "another", "transcript_path": "/x"}
    for headers in ({}, {"X_IAPeer_Identity": "claude-bob"}, {"X_IAPeer_Token": "wrong"}):
        assert (await edge.call("POST", "/api/v1/hook/event", hook, **headers))[0] == 401
    assert edge.evidence.seen == []
    status, answer = await edge.call("POST", "/api/v1/hook/event", hook, **TOKEN)
    assert (status, answer) == (200, {"ok": True, "seen": 1})
    assert edge.evidence.seen == [("session-1", "<iap ...>")]


@pytest.mark.requirement("daemon:paths")
@pytest.mark.parametrize("path", ["/", "/api/v1", "/api/v1/", "/mcp/", "/api/v1/sendx"])
async def test_unknown_paths_are_json_too(edge: Edge, path: str) -> None:
    status, answer = await edge.call("GET", path)
    assert (status, answer["error"]["code"]) == (404, "unknown_path")


@pytest.mark.requirement("daemon:paths")
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/api/v1/send"), ("POST", "/api/v1/ping"), ("HEAD", "/api/v1/inbox")],
)
async def test_a_wrong_method_is_named(edge: Edge, method: str, path: str) -> None:
    status, headers, _answer = await edge.tcp(method, path)
    assert status == 405
    assert headers["allow"] in {"GET", "POST"}


async def test_the_hot_send_shows_the_sessions_token_and_counts_as_cli(edge: Edge) -> None:
    import asyncio

    environ = edge.environ | {env.SESSION_TOKEN: ALICE_TOKEN}
    status, answer = await asyncio.to_thread(
        hot.send, environ, "bob", BODY, topic="t", attachments=("/a",), runtime="codex", key="k"
    )
    assert status == 200
    assert isinstance(answer, dict)
    (sent,) = edge.postman.sent
    assert (sent.caller, sent.path, sent.key) == ("claude-alice", "cli", "k")
    assert (sent.draft.runtime, sent.draft.attachments) == ("codex", ("/a",))
    status, _answer = await asyncio.to_thread(hot.send, environ, "bob", BODY, sender="claude-bob")
    assert status == 403
    status, _headers, _answer = await edge.tcp(
        "POST", "/api/v1/send", SEND, **TOKEN, X_IAPeer_Entrance="cli"
    )
    assert (status, edge.postman.sent[-1].path) == (200, "http")
