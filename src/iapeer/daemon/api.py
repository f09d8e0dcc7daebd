"""The JSON endpoints below `/api/v1`: bodies checked by msgspec, every error in one shape.

`send`, `inbox` and the prompt hook need an identity and answer on both listeners; everything
about peers, sessions and other people's messages is the operator's and answers on the unix
socket only.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from iapeer.core.draft import Draft
from iapeer.core.errors import IapeerError, InvalidInput, Unauthorized
from iapeer.core.settings import Settings
from iapeer.core.states import MessageState
from iapeer.core.text import one_line
from iapeer.daemon.answers import error_response, internal_error, json_response, log_call, log_crash
from iapeer.daemon.asks import checked_id, checked_name, decode
from iapeer.daemon.auth import Claim, Listener, Proof, check_operator, claim_of, prove
from iapeer.daemon.fleet_routes import FleetRoutes
from iapeer.daemon.inbox_stream import InboxStreams
from iapeer.daemon.services import Services
from iapeer.routing.ports import MessageQuery

PREFIX = "/api/v1"
ENTRANCE_HEADER = "x-iapeer-entrance"
"""`cli` marks a send of the command line in the delivery log; only believed on the unix socket."""

LIST_MAX = 1000
"""Most messages in one answer, or letters in one order."""
BODIES_MAX = 50
"""The same with whole bodies: 50 of 16,000 characters stay below what a client reads."""
GREP_MAX = 200
"""Longest text to search for, in characters."""

_Handler = Callable[[Request], Awaitable[Response | ASGIApp]]


class SendBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `send`; limits and patterns are checked by the router, in the contract's order."""

    to: str = ""
    message: str = ""
    runtime: str | None = None
    topic: str | None = None
    attachments: tuple[Any, ...] = ()
    sender: str = msgspec.field(name="from", default="")
    key: str | None = None


class LettersBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `dead-letters/redeliver` and `dead-letters/drop`."""

    ids: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=LIST_MAX)]


class AckBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `inbox/ack`."""

    id: str
    sender: str = msgspec.field(name="from", default="")


@dataclass
class _Call:
    """What the log says about one call."""

    verb: str
    proof: str = ""
    sender: str = ""
    ok: bool = False
    code: str | None = None


class Api:
    """The endpoints, as routes for the application."""

    def __init__(self, settings: Settings, services: Services, streams: InboxStreams) -> None:
        self._settings = settings
        self._services = services
        self._streams = streams

    def routes(self) -> list[Route]:
        """Return one route per path, each with its one method."""
        fleet = FleetRoutes(self._services)
        # They are tried in this order: what is called most comes first.
        return [
            self._route("POST", "/send", self._send),
            self._route("POST", "/hook/event", self._event),
            *(self._route(*route) for route in fleet.routes()),
            self._route("GET", "/ping", self._ping),
            self._route("GET", "/messages", self._messages),
            self._route("GET", "/messages/{id}", self._trace),
            self._route("GET", "/dead-letters", self._dead_letters),
            self._route("POST", "/dead-letters/redeliver", self._redeliver),
            self._route("POST", "/dead-letters/drop", self._drop),
            self._route("POST", "/session/done", self._done),
            self._route("POST", "/session/fresh", self._fresh),
            self._route("GET", "/inbox", self._inbox),
            self._route("POST", "/inbox/ack", self._ack),
        ]

    def _route(self, method: str, path: str, handler: _Handler) -> Route:
        verb = f"{method} {path}"

        async def endpoint(request: Request) -> Response | ASGIApp:
            call = request.scope["state"]["call"] = _Call(verb)
            try:
                response = await handler(request)
                call.ok = True
            except IapeerError as error:
                call.code = error.code
                response = error_response(error)
            except Exception as error:  # noqa: BLE001 - the root of this request
                log_crash(call.verb, error)
                call.code = "internal"
                response = error_response(internal_error())
            self._log(request, call)
            return response

        route = Route(PREFIX + path, endpoint, methods=[method])
        # A HEAD of the inbox would take the stream away from its reader.
        route.methods = {method}
        return route

    async def _ping(self, _request: Request) -> Response:
        return json_response({"ok": True, "version": self._services.version, "pid": os.getpid()})

    async def _send(self, request: Request) -> Response:
        body = decode(request, SendBody)
        proof = await self._prove(request, body.sender)
        draft = Draft(
            to=body.to,
            message=body.message,
            runtime=body.runtime,
            topic=body.topic,
            attachments=body.attachments,
        )
        result = await self._services.postman.send(
            proof.caller, draft, path=_entrance(request), key=body.key
        )
        return json_response(result.to_json())

    async def _messages(self, request: Request) -> Response:
        check_operator(request)
        found = await self._services.archive.messages(_query(request.query_params))
        return json_response({"ok": True, "messages": found})

    async def _dead_letters(self, request: Request) -> Response:
        check_operator(request)
        given = request.query_params
        _check_keys(given, {"peer", "limit"})
        peer = checked_name(given["peer"]) if "peer" in given else None
        found = await self._services.archive.dead_letters(peer, _limit(given, LIST_MAX, LIST_MAX))
        return json_response({"ok": True, "messages": found})

    async def _redeliver(self, request: Request) -> Response:
        ids = _letters(request)
        done = await self._services.archive.redeliver(ids, _entrance(request))
        return json_response({"ok": True, "results": done})

    async def _drop(self, request: Request) -> Response:
        ids = _letters(request)
        return json_response({"ok": True, "results": await self._services.archive.drop(ids)})

    async def _trace(self, request: Request) -> Response:
        check_operator(request)
        message_id = checked_id(request.path_params["id"])
        trace = await self._services.postman.trace(message_id)
        return json_response({"ok": True, "message": trace})

    async def _event(self, request: Request) -> Response:
        session = await self._session(request)
        event = decode(request, dict[str, Any])
        seen = await self._services.evidence.hook_event(session, event)
        return json_response({"ok": True, "seen": seen})

    async def _done(self, request: Request) -> Response:
        answer = await self._services.own.done(await self._session(request))
        return json_response({"ok": True, **msgspec.to_builtins(answer)})

    async def _fresh(self, request: Request) -> Response:
        answer = await self._services.own.fresh(await self._session(request))
        return json_response({"ok": True, **msgspec.to_builtins(answer)})

    async def _session(self, request: Request) -> str:
        """Return the session that is calling: only its own token speaks for it.

        Raises Unauthorized.
        """
        claim = self._claim(request)
        session = await self._services.tokens.session_of(claim.token) if claim.token else None
        if session is None:
            raise Unauthorized(
                "this call needs the token of a live session",
                hint="it is made in a session that iapeer started",
            )
        _call(request).proof = "token"
        return session

    async def _inbox(self, request: Request) -> ASGIApp:
        proof = await self._prove(request)
        return self._streams.stream(proof.caller)

    async def _ack(self, request: Request) -> Response:
        body = decode(request, AckBody)
        proof = await self._prove(request, body.sender)
        acked = await self._services.inbox.ack(proof.caller, body.id)
        return json_response({"ok": True, "acked": acked})

    def _claim(self, request: Request, sender: str = "") -> Claim:
        return claim_of(request, static_bearer=self._settings.bearer_token, sender=sender)

    async def _prove(self, request: Request, sender: str = "") -> Proof:
        proof = await prove(self._claim(request, sender), self._services.tokens)
        call = _call(request)
        call.proof = proof.proof
        call.sender = proof.caller.address
        return proof

    def _log(self, request: Request, call: _Call) -> None:
        state = request.scope["state"]
        peer = state["peer"]
        log_call(
            loud=self._settings.daemon_log or call.proof == "uid",
            verb=call.verb,
            listener=state["listener"],
            sender=call.sender or None,
            proof=call.proof or None,
            pid=peer.pid if peer else None,
            ok=call.ok,
            code=call.code,
        )


def _call(request: Request) -> _Call:
    call: _Call = request.scope["state"]["call"]
    return call


def _entrance(request: Request) -> str:
    state = request.scope["state"]
    unix = state["listener"] is Listener.UNIX
    return "cli" if unix and state["headers"].get(ENTRANCE_HEADER) == "cli" else "http"


def _letters(request: Request) -> tuple[str, ...]:
    """Return the ids of the body, for the operator only."""
    check_operator(request)
    body = decode(request, LettersBody)
    return tuple(checked_id(message_id) for message_id in body.ids)


def _query(given: QueryParams) -> MessageQuery:
    """Return what the query string asks for. Raises InvalidInput."""
    _check_keys(given, {"peer", "state", "grep", "limit", "bodies"})
    bodies = given.get("bodies", "0") == "1"
    grep = given.get("grep") or None
    if grep is not None and len(grep) > GREP_MAX:
        raise InvalidInput(f"the text to search for exceeds {GREP_MAX} characters")
    state = given.get("state")
    if state is not None and state not in set(MessageState):
        raise InvalidInput(
            f"there is no state {one_line(state, 40)!r}", hint=f"states: {', '.join(MessageState)}"
        )
    return MessageQuery(
        peer=checked_name(given["peer"]) if "peer" in given else None,
        state=MessageState(state) if state is not None else None,
        grep=grep,
        limit=_limit(given, 50, BODIES_MAX if bodies else LIST_MAX),
        bodies=bodies,
    )


def _limit(given: QueryParams, default: int, most: int) -> int:
    text = given.get("limit", str(min(default, most)))
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= most):
        raise InvalidInput(f"limit={one_line(text, 40)!r} is no number from 1 to {most}")
    return int(text)


def _check_keys(given: QueryParams, known: set[str]) -> None:
    for name in given:
        if name not in known:
            raise InvalidInput(f"there is no query parameter {one_line(name, 40)!r}")
