from __future__ import annotations

import asyncio
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iapeer.core.errors import CallerError, Unauthorized
from iapeer.core.identity import Identity, Intelligence
from iapeer.core.record import RegistryRecord
from iapeer.daemon.auth import (
    Claim,
    Listener,
    PeerCred,
    Proof,
    check_account,
    check_bearer,
    check_host,
    check_origin,
    prove,
    session_token,
)
from iapeer.registry.caller import Caller

ME = PeerCred(1, os.geteuid(), 0)
OTHER = PeerCred(1, 4242, 0)
TOKENS = {"t-alice": "claude-alice", "t-bob": "claude-bob"}


def caller(address: str) -> Caller:
    runtime, _, personality = address.partition("-")
    record = RegistryRecord(
        personality=personality,
        default_runtime=runtime,
        runtimes=(runtime,),
        intelligence=Intelligence.ARTIFICIAL,
        cwd="/x",
    )
    return Caller(Identity(runtime, personality), record)


class Fake:
    async def caller_of(self, token: str) -> Caller | None:
        return caller(TOKENS[token]) if token in TOKENS else None

    async def registered(self, address: str) -> Caller:
        if address not in TOKENS.values():
            raise CallerError("unknown caller")
        return caller(address)


def decide(claim: Claim) -> Proof | type[CallerError]:
    try:
        return asyncio.run(prove(claim, Fake()))
    except CallerError as error:
        return type(error)


NAMES = st.sampled_from(["", "claude-alice", "claude-bob", "claude-eve", "junk"])


@pytest.mark.requirement("caller:token")
@given(
    listener=st.sampled_from(Listener),
    peer=st.sampled_from([None, ME, OTHER]),
    token=st.sampled_from(["", "t-alice", "t-bob", "wrong"]),
    header=NAMES,
    sender=NAMES,
)
def test_nobody_ever_speaks_for_somebody_else(
    listener: Listener, peer: PeerCred | None, token: str, header: str, sender: str
) -> None:
    claim = Claim(listener=listener, peer=peer, token=token, header=header, sender=sender)
    got = decide(claim)
    said = {name for name in (header, sender) if name}
    if token:
        owner = TOKENS.get(token)
        if owner is None:
            assert got is Unauthorized
        elif said - {owner}:
            assert got is CallerError
        else:
            assert isinstance(got, Proof)
            assert (got.caller.address, got.proof) == (owner, "token")
    elif listener is Listener.TCP or peer != ME or len(said) != 1 or not said & {*TOKENS.values()}:
        assert got is CallerError
    else:
        assert isinstance(got, Proof)
        assert ({got.caller.address}, got.proof) == (said, "uid")


def test_a_token_never_shows_in_a_representation() -> None:
    claim = Claim(listener=Listener.TCP, peer=None, token="secret", header="h")
    assert "secret" not in repr(claim)
    assert "secret" not in f"{[claim]}"


@pytest.mark.requirement("daemon:bearer")
@pytest.mark.parametrize("value", ["", "sesame", "Basic sesame", "Bearer", "Bearer sesame2"])
def test_a_wrong_bearer_is_unauthorized(value: str) -> None:
    with pytest.raises(Unauthorized, match="unauthorized"):
        check_bearer("sesame", value)


@pytest.mark.requirement("daemon:bearer")
def test_the_right_bearer_passes_and_none_is_asked_for_by_default() -> None:
    check_bearer("sesame", "Bearer sesame")
    check_bearer("sesame", "bearer  sesame ")
    check_bearer("", "whatever")


def test_a_session_token_is_not_read_where_the_static_bearer_is() -> None:
    headers = {"authorization": "Bearer x"}
    assert session_token(headers, static_bearer="x") == ""
    assert session_token(headers) == "x"
    both = headers | {"x-iapeer-token": "y"}
    assert session_token(both, static_bearer="x") == "y"
    with pytest.raises(Unauthorized, match="different tokens"):
        session_token(both)
    assert session_token(headers | {"x-iapeer-token": "x"}) == "x"


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8765", "localhost:8765", "[::1]:8765", "LocalHost:8765"]
)
def test_our_own_names_pass(host: str) -> None:
    check_host(Listener.TCP, host, 8765)
    check_origin(f"http://{host}", 8765)


@pytest.mark.requirement("daemon:host-origin")
@pytest.mark.parametrize(
    "host",
    [
        "",
        "localhost",
        "localhost:80",
        "localhost.:8765",
        "evil:8765",
        "127.0.0.1:8765.evil",
        "::1",
        "localhost:8765@evil",
        " localhost:8765",
        "0.0.0.0:8765",
        "127.0.0.2:8765",
    ],
)
def test_every_other_name_is_foreign(host: str) -> None:
    with pytest.raises(CallerError) as caught:
        check_host(Listener.TCP, host, 8765)
    assert caught.value.code == "foreign_host"
    with pytest.raises(CallerError) as caught:
        check_origin(f"http://{host}", 8765)
    assert caught.value.code == "foreign_origin"
    check_host(Listener.UNIX, host, 8765)


@pytest.mark.requirement("caller:account")
def test_only_our_account_and_root_use_the_unix_socket() -> None:
    check_account(Listener.UNIX, ME)
    check_account(Listener.UNIX, PeerCred(1, 0, 0))
    check_account(Listener.TCP, None)
    for peer in (None, OTHER):
        with pytest.raises(CallerError) as caught:
            check_account(Listener.UNIX, peer)
        assert caught.value.code == "foreign_account"
