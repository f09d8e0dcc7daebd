"""The endpoints about peers and their sessions: the operator's, on the unix socket only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from iapeer.daemon.answers import json_response
from iapeer.daemon.asks import checked_name, decode, peer_of, target
from iapeer.daemon.auth import check_operator
from iapeer.daemon.services import Services
from iapeer.routing.ports import Fleet

Handler = Callable[[Request], Awaitable[Response]]


class RemoveBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `remove`; `force` ends a running peer first."""

    force: bool = False


class RenameBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `rename`."""

    to: str


class FleetRoutes:
    """One handler per verb."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @property
    def _fleet(self) -> Fleet:
        return self._services.fleet

    def routes(self) -> list[tuple[str, str, Handler]]:
        """Return (method, path, handler) of each."""
        return [
            ("GET", "/peers", self._peers),
            ("GET", "/status", self._status),
            ("POST", "/peers/{peer}/stop", self._stop),
            ("POST", "/peers/{peer}/start", self._start),
            ("POST", "/peers/{peer}/wake", self._wake),
            ("POST", "/peers/{peer}/new", self._new),
            ("POST", "/peers/{peer}/launch", self._launch),
            ("POST", "/peers/{peer}/refresh", self._refresh),
            ("POST", "/peers/{peer}/interrupt", self._interrupt),
            ("POST", "/peers/{peer}/compact", self._compact),
            ("POST", "/peers/{peer}/remove", self._remove),
            ("POST", "/peers/{peer}/rename", self._rename),
        ]

    async def _peers(self, request: Request) -> Response:
        check_operator(request)
        return json_response({"ok": True, "peers": await self._fleet.peers()})

    async def _status(self, request: Request) -> Response:
        check_operator(request)
        return json_response({"ok": True, "status": await self._fleet.status()})

    async def _stop(self, request: Request) -> Response:
        peer, runtime = target(request)
        return json_response({"ok": True, "actions": await self._fleet.stop(peer, runtime)})

    async def _start(self, request: Request) -> Response:
        peer, runtime = target(request)
        return json_response({"ok": True, "actions": await self._fleet.start(peer, runtime)})

    async def _wake(self, request: Request) -> Response:
        peer, runtime = target(request)
        return json_response({"ok": True, "attach": await self._fleet.wake(peer, runtime)})

    async def _new(self, request: Request) -> Response:
        peer, runtime = target(request)
        return json_response({"ok": True, "identity": await self._fleet.new(peer, runtime)})

    async def _launch(self, request: Request) -> Response:
        peer, runtime = target(request)
        return json_response({"ok": True, "attach": await self._fleet.launch(peer, runtime)})

    async def _refresh(self, request: Request) -> Response:
        peer, runtime = target(request)
        return json_response({"ok": True, "actions": await self._fleet.refresh(peer, runtime)})

    async def _interrupt(self, request: Request) -> Response:
        peer, runtime = target(request)
        identity = await self._fleet.interrupt(peer, runtime)
        return json_response({"ok": True, "identity": identity})

    async def _compact(self, request: Request) -> Response:
        peer, runtime = target(request)
        identity, resumed = await self._fleet.compact(peer, runtime)
        return json_response({"ok": True, "identity": identity, "resumed": resumed})

    async def _remove(self, request: Request) -> Response:
        check_operator(request)
        peer = peer_of(request)
        body = decode(request, RemoveBody)
        done = await self._fleet.remove(peer, force=body.force)
        return json_response({"ok": True, "result": done})

    async def _rename(self, request: Request) -> Response:
        check_operator(request)
        peer = peer_of(request)
        body = decode(request, RenameBody)
        done = await self._fleet.rename(peer, checked_name(body.to))
        return json_response({"ok": True, "result": done})
