"""Versions, envelopes and errors of MCP as data."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iapeer.daemon.mcp.protocol import (
    METHODS,
    VERSIONS,
    CallParams,
    Code,
    Failure,
    Fault,
    Generation,
    InitializeParams,
    Notification,
    ProtocolError,
    Reply,
    Request,
    Result,
    encode,
    generation_of,
    negotiate,
    read_message,
    read_params,
    versions_of,
)


def refused(body: bytes) -> Code:
    with pytest.raises(ProtocolError) as caught:
        read_message(body)
    assert caught.value.status == 400
    return caught.value.rpc


@pytest.mark.parametrize("version", [v for v, g in VERSIONS.items() if g is Generation.HANDSHAKE])
def test_a_handshake_keeps_a_version_that_has_one(version: str) -> None:
    assert negotiate(version) == version
    assert generation_of(version) is Generation.HANDSHAKE


@pytest.mark.parametrize("asked", ["1999-01-01", "", "zzz", "2026-07-28"])
def test_any_other_handshake_agrees_on_the_newest_version_that_has_one(asked: str) -> None:
    assert negotiate(asked) == "2025-11-25"
    assert generation_of(asked) is Generation.PER_REQUEST


def test_no_header_is_an_old_client() -> None:
    assert generation_of(None) is Generation.HANDSHAKE


def test_every_version_is_of_one_generation_and_the_names_sort_by_age() -> None:
    assert [v for g in Generation for v in versions_of(g)] == list(VERSIONS) == sorted(VERSIONS)
    assert set(METHODS) == set(Generation)


def test_the_id_and_the_method_tell_what_a_message_is() -> None:
    assert read_message(b'{"jsonrpc":"2.0","id":"a","method":"m","params":{"x":1},"y":2}') == (
        Request("2.0", "a", "m", {"x": 1})
    )
    assert read_message(b'{"jsonrpc":"2.0","method":"m"}') == Notification("2.0", "m")
    assert read_message(b'{"jsonrpc":"2.0","id":1,"result":{}}') == Reply("2.0", 1, {})
    error = read_message(b'{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":"x"}}')
    assert error == Reply("2.0", None, error=Fault(1, "x"))


@pytest.mark.parametrize(
    "body", ["", "{", "[1,]", "{'a':1}", '"\\x"', "nope", "[" * 100_000, "1" * 5000]
)
def test_what_is_no_json_is_a_parse_error(body: str) -> None:
    assert refused(body.encode()) is Code.PARSE_ERROR


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b"[]",
        b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]',
        b"{}",
        b'{"jsonrpc":"1.0","id":1,"method":"m"}',
        b'{"id":1,"method":"m"}',
        b'{"jsonrpc":"2.0","id":null,"method":"m"}',
        b'{"jsonrpc":"2.0","id":1.5,"method":"m"}',
        b'{"jsonrpc":"2.0","id":true,"method":"m"}',
        b'{"jsonrpc":"2.0","id":1,"method":null}',
        b'{"jsonrpc":"2.0","id":1,"method":"m","params":[]}',
        b'{"jsonrpc":"2.0","method":"m","params":"x"}',
        b'{"jsonrpc":"2.0","id":1}',
        b'{"jsonrpc":"2.0","id":null,"result":{}}',
        b'{"jsonrpc":"2.0","id":1,"error":{"code":"x","message":"y"}}',
    ],
)
def test_json_that_is_no_message_is_an_invalid_request(body: bytes) -> None:
    assert refused(body) is Code.INVALID_REQUEST


def test_parameters_are_read_by_what_is_used_and_the_rest_is_left_alone() -> None:
    given = {"name": "t", "arguments": {"a": 1}, "_meta": {"k": 2}, "task": [], "other": 3}
    assert read_params(CallParams, given) == CallParams(name="t", arguments={"a": 1}, meta={"k": 2})
    for wrong in (None, {}, {"name": 5}, {"name": "t", "arguments": [1]}):
        with pytest.raises(ProtocolError) as caught:
            read_params(CallParams, wrong)
        assert caught.value.rpc is Code.INVALID_PARAMS
    with pytest.raises(ProtocolError, match="clientInfo"):
        read_params(InitializeParams, {"protocolVersion": "x", "capabilities": {}})


def test_answers_say_what_they_answer_and_leave_out_what_there_is_not() -> None:
    assert json.loads(encode(Result(7, msgspec.Raw(b'{"a":1}')))) == {
        "jsonrpc": "2.0",
        "id": 7,
        "result": {"a": 1},
    }
    assert json.loads(encode(Failure(None, Fault(Code.PARSE_ERROR, "x")))) == {
        "jsonrpc": "2.0",
        "id": None,
        "error": {"code": -32700, "message": "x"},
    }


@given(request_id=st.integers() | st.text(st.characters(codec=None, categories=None)))
def test_every_id_comes_back_as_it_was(request_id: int | str) -> None:
    body = json.dumps({"jsonrpc": "2.0", "id": request_id, "method": "m"}).encode()
    message = read_message(body)
    assert isinstance(message, Request)
    answer = encode(Result(message.id, {"echo": message.id}))
    assert json.loads(answer)["id"] == json.loads(body)["id"]
    raw = encode(Result(message.id, msgspec.Raw(b"{}")))
    assert json.loads(raw) == {"jsonrpc": "2.0", "id": json.loads(body)["id"], "result": {}}
