"""Who may ask, and as whom: decisions without I/O, and the little that reads them off a request.

The rules, in the order a request meets them: the static bearer when one is configured; on the
unix socket the account of the other process; Host and Origin (a web page that rebinds its name to
127.0.0.1 still sends its own); then, where a call needs an identity, the session token, which
decides on both listeners, and only without one, on the unix socket, the word of our own account.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

import msgspec
from starlette.requests import HTTPConnection
from starlette.types import Scope

from iapeer.core.errors import CallerError, Unauthorized
from iapeer.core.ids import equal
from iapeer.core.text import one_line
from iapeer.registry.caller import Caller
from iapeer.routing.ports import Tokens

TOKEN_HEADER = "x-iapeer-token"  # noqa: S105 - the name of a header, not a secret
IDENTITY_HEADER = "x-iapeer-identity"

_LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")
_NO_HEADER = f"missing or malformed {IDENTITY_HEADER} header"
_TOKEN_HINT = (
    "send X-IAPeer-Token: sessions that iapeer starts have it in PEER_TOKEN; "  # noqa: S105
    "a program of your own account can use the unix socket instead"
)


class Listener(StrEnum):
    """Which door a connection came in by."""

    UNIX = "unix"
    TCP = "tcp"


class PeerCred(msgspec.Struct, frozen=True):
    """The process at the other end of a unix socket, as the kernel saw it at connect."""

    pid: int
    uid: int
    gid: int


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What one request shows and says about its sender; empty strings where it says nothing.

    `header` is `X-IAPeer-Identity`, `sender` the body's `from`. The token never shows in `repr`.
    """

    listener: Listener
    peer: PeerCred | None
    token: str = ""
    header: str = ""
    sender: str = ""

    def __repr__(self) -> str:
        return f"Claim({self.listener}, {self.peer}, header={self.header!r}, from={self.sender!r})"


class Proof(msgspec.Struct, frozen=True):
    """An identity, and what it was accepted on: a session's token or our own account."""

    caller: Caller
    proof: Literal["token", "uid"]


def check_bearer(expected: str, authorization: str) -> None:
    """Compare the static bearer in constant time; an empty `expected` switches the check off.

    Raises Unauthorized.
    """
    if expected and not equal(_bearer(authorization), expected):
        raise Unauthorized(
            "unauthorized", hint="send Authorization: Bearer with the daemon's bearer token"
        )


def check_account(listener: Listener, peer: PeerCred | None) -> None:
    """Let only our own account and root in by the unix socket.

    The socket's mode says so already; this holds when somebody loosened it. Raises CallerError.
    """
    if listener is Listener.UNIX and (peer is None or peer.uid not in (os.geteuid(), 0)):
        who = f"uid {peer.uid}" if peer else "an unknown account"
        raise CallerError(
            f"this daemon belongs to uid {os.geteuid()}, the call came from {who}",
            hint="run your own daemon (IAPEER_ROOT)",
            code="foreign_account",
        )


def check_host(listener: Listener, host: str, port: int) -> None:
    """Accept on TCP only our own names with our own port.

    Raises CallerError.
    """
    if listener is Listener.TCP and host.lower() not in _hosts(port):
        raise CallerError(
            f"refused Host {one_line(host, 80)!r}: this daemon is only 127.0.0.1:{port}",
            hint=f"use http://127.0.0.1:{port}",
            code="foreign_host",
        )


def check_origin(origin: str, port: int) -> None:
    """Accept no Origin, or our own: a page of another local server is foreign too.

    Raises CallerError.
    """
    if origin and origin.lower() not in {f"http://{host}" for host in _hosts(port)}:
        raise CallerError(
            f"refused Origin {one_line(origin, 80)!r}: web pages may not call this daemon",
            code="foreign_origin",
        )


async def admit(expected: str, authorization: str, tokens: Tokens) -> None:
    """Demand the static bearer where one is configured, or the token of a live session.

    A session proves more than the bearer does, and some agents can show one header only that they
    keep out of their logs (measured: Claude Code 2.1.197). Raises Unauthorized.
    """
    try:
        check_bearer(expected, authorization)
    except Unauthorized:
        token = _bearer(authorization)
        if not token or await tokens.caller_of(token) is None:
            raise


def session_token(headers: Mapping[str, str], *, static_bearer: str = "") -> str:
    """Return the session token of a request, "" when it shows none.

    `Authorization` counts unless it shows the static bearer. Raises Unauthorized when the two
    headers show different tokens.
    """
    token = headers.get(TOKEN_HEADER, "").strip()
    other = _bearer(headers.get("authorization", ""))
    if static_bearer and equal(other, static_bearer):
        return token
    if token and other and not equal(token, other):
        raise Unauthorized(
            "X-IAPeer-Token and Authorization show different tokens",
            hint="send one of them",
        )
    return token or other


async def prove(claim: Claim, tokens: Tokens) -> Proof:
    """Decide who is calling.

    A token decides on both listeners and nothing may disagree with it. Without one the unix
    socket takes the word of our own account for a registered peer, TCP takes nobody's.

    Raises Unauthorized for an unknown token, CallerError for everything else.
    """
    if claim.token:
        caller = await tokens.caller_of(claim.token)
        if caller is None:
            raise Unauthorized(
                "unknown session token: the session it was issued to has ended", hint=_TOKEN_HINT
            )
        _check_agrees(caller.address, claim)
        return Proof(caller, "token")
    if claim.listener is Listener.TCP:
        raise _unproven(claim)
    check_account(claim.listener, claim.peer)
    if claim.header and claim.sender and claim.header != claim.sender:
        raise CallerError(
            f"the header says {_shown(claim.header)}, the body says {_shown(claim.sender)}",
            hint="name one sender",
        )
    address = claim.sender or claim.header
    if not address:
        raise CallerError(_NO_HEADER, hint="name the sender: X-IAPeer-Identity or `from`")
    return Proof(await tokens.registered(address), "uid")


def claim_of(request: HTTPConnection, *, static_bearer: str, sender: str = "") -> Claim:
    """Read the claim off a request; listener and peer are our protocol's, the headers the gate's.

    Raises Unauthorized, see `session_token`.
    """
    state = request.scope["state"]
    return Claim(
        listener=state["listener"],
        peer=state["peer"],
        token=session_token(state["headers"], static_bearer=static_bearer),
        header=state["headers"].get(IDENTITY_HEADER, "").strip(),
        sender=sender,
    )


def headers_of(scope: Scope) -> dict[str, str]:
    """Return a request's headers by name, in small letters; of two with one name the first.

    The gate makes this table once; each look into starlette's goes through all of them.
    """
    return {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in reversed(scope["headers"])
    }


def check_operator(request: HTTPConnection) -> None:
    """Let only the owner's account, seen by the kernel on the unix socket, operate the fleet.

    Raises CallerError.
    """
    state = request.scope["state"]
    if state["listener"] is not Listener.UNIX:
        raise CallerError(
            "operator calls are answered on the unix socket only",
            hint="use the iapeer command on this host",
            code="forbidden",
        )
    check_account(state["listener"], state["peer"])


def _check_agrees(address: str, claim: Claim) -> None:
    for claimed in (claim.header, claim.sender):
        if claimed and claimed != address:
            raise CallerError(
                f"the session token belongs to {address}, the call says {_shown(claimed)}",
                hint="leave the sender out: the token decides",
            )


def _unproven(claim: Claim) -> CallerError:
    if not (claim.header or claim.sender):
        return CallerError(f"{_NO_HEADER}, and no session token", hint=_TOKEN_HINT)
    return CallerError(
        f"no session token: over TCP {_shown(claim.header or claim.sender)} must be proven",
        hint=_TOKEN_HINT,
    )


def _shown(address: str) -> str:
    return repr(one_line(address, 80))


def _hosts(port: int) -> set[str]:
    return {f"{name}:{port}" for name in _LOCAL_NAMES}


def _bearer(authorization: str) -> str:
    scheme, _, value = authorization.partition(" ")
    return value.strip() if scheme.lower() == "bearer" else ""
