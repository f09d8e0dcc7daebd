"""The ASGI application: one gate in front of everything, then the API and `/mcp`."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from iapeer.core.errors import IapeerError, InvalidInput
from iapeer.core.settings import Settings
from iapeer.core.text import one_line
from iapeer.daemon.answers import error_response, internal_error, log_crash, log_refusal
from iapeer.daemon.api import Api
from iapeer.daemon.auth import admit, check_account, check_host, check_origin, headers_of
from iapeer.daemon.inbox_stream import InboxStreams
from iapeer.daemon.mcp.endpoint import McpEndpoint
from iapeer.daemon.services import Services
from iapeer.routing.ports import Tokens

MCP_PATH = "/mcp"
BODY_S = 10.0
"""How long a request body may take to arrive."""
LINGER_S = 2.0
"""How long the rest of a refused body is read and dropped before the answer."""


def build_app(settings: Settings, services: Services, streams: InboxStreams, port: Port) -> ASGIApp:
    """Return the application; `port` is asked per request, for port 0 is known after binding."""
    routes = [
        Route(MCP_PATH, McpEndpoint(settings, services), methods=["POST"]),
        *Api(settings, services, streams).routes(),
    ]
    app = Starlette(routes=routes, exception_handlers={404: _not_found, 405: _wrong_method})
    app.router.redirect_slashes = False
    return Gate(_Direct(app, routes), settings, port, services.tokens)


Port = Callable[[], int]


class _Direct:
    """Finds the endpoint of a path without parameters in a table; asks the router for all else.

    Each of ours is the root of its request: the router's own nets under it only cost time (a tenth
    of an accept, by py-spy).
    """

    def __init__(self, app: ASGIApp, routes: Sequence[Route]) -> None:
        self._app = app
        self._apps = {
            (method, route.path): _app_of(route)
            for route in routes
            for method in route.methods or ()
            if not route.param_convertors
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self._apps.get((scope["method"], scope["path"]), self._app)(scope, receive, send)


def _app_of(route: Route) -> ASGIApp:
    """Return what answers at a route, without the router's net around it."""
    if not inspect.iscoroutinefunction(route.endpoint):
        return route.app
    endpoint: Callable[[Request], Awaitable[ASGIApp]] = route.endpoint

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        response = await endpoint(Request(scope, receive, send))
        await response(scope, receive, send)

    return answer


class Gate:
    """What every request passes before any other code sees it, and the root of its task.

    In order: static bearer, account, Host, Origin, body. The body is read here, whole and within
    size and time, so that nothing behind the gate can be kept waiting by a slow sender. What is
    behind finds it in the scope's `state`, with the `headers` in a table.
    """

    def __init__(self, app: ASGIApp, settings: Settings, port: Port, tokens: Tokens) -> None:
        self._app = app
        self._settings = settings
        self._tokens = tokens
        self._port = port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; errors never leave here."""
        answered = False
        incoming = _Incoming(receive)

        async def watched(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            try:
                scope["state"]["headers"] = headers = headers_of(scope)
                await self._check(scope["state"])
                body = await self._body(headers, incoming)
            except IapeerError as error:
                log_refusal(error, **_facts(scope))
                await _drop(scope, incoming)
                await self._render(error, scope, receive, watched)
                return
            if body is not None:
                scope["state"]["body"] = body
                await self._app(scope, receive, watched)
        except asyncio.CancelledError:
            # The daemon is going down and this request did not end in time.
            await _cut(scope)
        except Exception as error:  # noqa: BLE001 - the root of this request
            if not isinstance(error, TimeoutError):
                log_crash("request", error)
            if answered:
                await _cut(scope)
            else:
                await self._render(internal_error(), scope, receive, watched)

    async def _check(self, state: dict[str, Any]) -> None:
        headers, port = state["headers"], self._port()
        if self._settings.bearer_token:
            shown = headers.get("authorization", "")
            await admit(self._settings.bearer_token, shown, self._tokens)
        check_account(state["listener"], state["peer"])
        check_host(state["listener"], headers.get("host", ""), port)
        check_origin(headers.get("origin", ""), port)

    async def _body(self, headers: Mapping[str, str], incoming: _Incoming) -> bytes | None:
        """Return the whole body, None when the caller is gone.

        Raises InvalidInput for one too large or too slow.
        """
        limit = self._settings.max_body_bytes
        declared = headers.get("content-length", "")
        if declared.isdigit() and int(declared) > limit:
            raise _too_large(limit)
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_S):
                while not incoming.ended:
                    body += await incoming.read()
                    if len(body) > limit:
                        raise _too_large(limit)
        except TimeoutError:
            raise InvalidInput(
                f"the request body did not arrive within {BODY_S:g} s", code="timeout"
            ) from None
        return None if incoming.gone else bytes(body)

    async def _render(self, error: IapeerError, scope: Scope, receive: Receive, send: Send) -> None:
        rpc = not scope["path"].startswith("/api/")
        await error_response(error, rpc=rpc)(scope, receive, send)


class _Incoming:
    """A request's body as it comes; `ended` with its last piece or with the connection."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.ended = False
        self.gone = False

    async def read(self) -> bytes:
        """Return the next piece."""
        message = await self._receive()
        self.gone = message["type"] != "http.request"
        self.ended = self.gone or not message.get("more_body", False)
        piece: bytes = message.get("body", b"")
        return piece


async def _drop(scope: Scope, incoming: _Incoming) -> None:
    """Read a refused body for a moment; a caller that waits for a go-ahead gets none.

    A close on unread bytes resets the connection, and the caller would see that, not the answer.
    """
    if "expect" in scope["state"]["headers"]:
        return
    with anyio.move_on_after(LINGER_S):
        while not incoming.ended:
            await incoming.read()


def _too_large(limit: int) -> InvalidInput:
    return InvalidInput(
        f"the request body is larger than {limit} bytes",
        hint="write the long part to a file and attach its path",
        code="body_too_large",
    )


async def _cut(scope: Scope) -> None:
    """Drop the connection of a response that can't be finished, buffered bytes included."""
    scope["state"]["abort"]()
    # The server learns of the lost connection in the loop's next round.
    await asyncio.sleep(0)


def _facts(scope: Scope) -> dict[str, object]:
    return {
        "listener": scope["state"]["listener"],
        "method": scope["method"],
        "path": one_line(scope["path"], 120),
    }


async def _not_found(request: Request, _error: Exception) -> Response:
    path = one_line(request.url.path, 120)
    return error_response(InvalidInput(f"no such path: {path}", code="unknown_path"))


async def _wrong_method(request: Request, error: Exception) -> Response:
    allow = (error.headers or {}).get("Allow", "") if isinstance(error, HTTPException) else ""
    refusal = InvalidInput(
        f"{request.method} is not allowed here", hint=f"use {allow}", code="wrong_method"
    )
    rpc = request.url.path == MCP_PATH
    if not (rpc and request.method == "GET"):
        # Every MCP client asks once whether there is a stream: no is the protocol's answer.
        log_refusal(refusal, **_facts(request.scope))
    return error_response(refusal, rpc=rpc, headers={"allow": allow})
