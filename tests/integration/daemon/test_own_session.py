"""A session speaks for itself with its own token only; the verbs of presence are the operator's."""

from __future__ import annotations

import pytest

from tests.integration.daemon.support import ALICE_TOKEN, Edge

pytestmark = pytest.mark.anyio

TOKEN = {"X_IAPeer_Token": ALICE_TOKEN}
WORDS = ("/api/v1/session/done", "/api/v1/session/fresh")


@pytest.mark.parametrize("path", WORDS)
async def test_a_session_says_something_about_itself_on_both_listeners(
    edge: Edge, path: str
) -> None:
    word = path.rpartition("/")[2]
    for call in (edge.call, edge.tcp):
        status, *_, answer = await call("POST", path, {}, **TOKEN)
        assert (status, answer["ok"], answer["identity"]) == (200, True, "claude-bob")
        assert answer["ephemeral"] == (word == "done")


@pytest.mark.parametrize("path", WORDS)
async def test_nobody_else_speaks_for_a_session(edge: Edge, path: str) -> None:
    for headers in ({}, {"X_IAPeer_Identity": "claude-alice"}, {"X_IAPeer_Token": "x" * 64}):
        for call in (edge.call, edge.tcp):
            status, *_, answer = await call("POST", path, {}, **headers)
            assert (status, answer["error"]["code"]) == (401, "unauthorized")


async def test_presence_is_ordered_by_the_operator_only(edge: Edge) -> None:
    paths = [f"/api/v1/peers/bob/{verb}" for verb in ("new", "launch", "refresh")]
    for path in paths:
        status, *_, answer = await edge.tcp("POST", path, {}, **TOKEN)
        assert (status, answer["error"]["code"]) == (403, "forbidden")
    assert edge.fleet.calls == []
    answers = [await edge.call("POST", path, {"runtime": "claude"}) for path in paths]
    assert [status for status, _ in answers] == [200] * 3
    assert answers[0][1]["identity"] == "claude-bob"
    assert answers[1][1]["attach"]["session"] == "claude-bob"
    assert answers[2][1]["actions"] == {"claude": "refresh-armed"}
    assert [call[0] for call in edge.fleet.calls] == ["new", "launch", "refresh"]
