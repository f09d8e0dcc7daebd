from __future__ import annotations

from typing import Any

import pytest

from iapeer.core.states import MessageState
from iapeer.routing.ports import MessageQuery
from tests.integration.daemon.support import BODY, Edge

pytestmark = pytest.mark.anyio


async def test_a_query_reaches_the_archive_as_it_was_asked(edge: Edge) -> None:
    path = "/api/v1/messages?peer=bob&state=held&grep=a%20%26%C3%A9&limit=7&bodies=1"
    status, answer = await edge.call("GET", path)
    asked = MessageQuery(peer="bob", state=MessageState.HELD, grep="a &é", limit=7, bodies=True)
    assert (status, edge.archive.calls) == (200, [("messages", asked)])
    assert answer["messages"][0]["body"] == BODY


async def test_no_query_is_the_newest_fifty_without_bodies(edge: Edge) -> None:
    _, answer = await edge.call("GET", "/api/v1/messages")
    assert edge.archive.calls == [("messages", MessageQuery())]
    assert BODY not in str(answer)


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("state=lost", "there is no state 'lost'"),
        ("limit=0", "limit='0' is no number from 1 to 1000"),
        ("limit=1001", "limit='1001' is no number"),
        ("limit=51&bodies=1", "limit='51' is no number from 1 to 50"),
        ("limit=-1", "is no number"),
        ("peer=..%2Fx", "invalid personality"),
        (f"grep={'x' * 201}", "exceeds 200 characters"),
        ("pear=bob", "there is no query parameter 'pear'"),
    ],
)
async def test_a_query_that_makes_no_sense_is_refused(edge: Edge, query: str, told: str) -> None:
    status, answer = await edge.call("GET", f"/api/v1/messages?{query}")
    assert status == 400
    assert told in answer["error"]["message"]
    assert edge.archive.calls == []


async def test_letters_are_settled_by_id_and_say_who_ordered_it(edge: Edge) -> None:
    ids = ["a" * 12, "c" * 12]
    path = "/api/v1/dead-letters/redeliver"
    status, answer = await edge.call("POST", path, {"ids": ids}, X_IAPeer_Entrance="cli")
    assert (status, [done["new_id"] for done in answer["results"]]) == (200, ["b" * 12] * 2)
    status, _ = await edge.call("POST", "/api/v1/dead-letters/drop", {"ids": ids})
    assert status == 200
    assert edge.archive.calls == [("redeliver", tuple(ids), "cli"), ("drop", tuple(ids))]


@pytest.mark.parametrize(
    "body", [{}, {"ids": []}, {"ids": ["nope"]}, {"ids": "a" * 12}, {"ids": ["a" * 12] * 1001}]
)
@pytest.mark.parametrize("verb", ["redeliver", "drop"])
async def test_an_order_without_proper_ids_is_refused(edge: Edge, verb: str, body: Any) -> None:
    status, _ = await edge.call("POST", f"/api/v1/dead-letters/{verb}", body)
    assert (status, edge.archive.calls) == (400, [])


async def test_dead_letters_are_listed_by_peer(edge: Edge) -> None:
    status, answer = await edge.call("GET", "/api/v1/dead-letters?peer=bob&limit=3")
    assert (status, len(answer["messages"])) == (200, 1)
    assert edge.archive.calls == [("dead_letters", "bob", 3)]
