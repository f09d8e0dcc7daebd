"""The few requests that are made of opencode's server, and its stream of events."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import httpx2
import msgspec

from .errors import NoAnswer, NotReached
from .frames import Event, Session, Status, Stored

LOOK_S = 1.5
"""Longest request; the server answers within 40 ms, but it is one thread with the terminal."""
SILENCE_S = 30.0
"""A stream that is silent longer is dead: the server sends a heartbeat every 10 s (measured)."""
EVENT_MAX = 16 << 20
"""Bytes of one event; the output of a tool is in it."""
PAGE = 50
"""Messages of one look back."""

_T = TypeVar("_T")
_NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)


class Client:
    """Requests to the server at `address`, an http URL that may hold name and password.

    Every method raises NotReached when nobody was there, NoAnswer when the answer did not come or
    is none that can be read.
    """

    def __init__(self, address: str) -> None:
        url = httpx2.URL(address)
        auth = httpx2.BasicAuth(url.username, url.password) if url.username else None
        self._http = httpx2.AsyncClient(
            base_url=url.copy_with(username=None, password=None),
            auth=auth,
            timeout=LOOK_S,
            # A kept connection may be closed at the other end just when a request goes out on it:
            # then nobody knows whether it arrived. A new one costs 0.1 ms here.
            limits=httpx2.Limits(max_keepalive_connections=0),
            trust_env=False,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def session(self, session_id: str) -> Session | None:
        """Return a session, None when there is none of this id."""
        status, body = await self._ask("GET", f"/session/{session_id}")
        return _decode(body, Session) if status == 200 else None

    async def create_session(self, title: str) -> Session:
        """Make a session; with a title of ours no model is asked for one."""
        status, body = await self._ask("POST", "/session", {"title": title})
        if status != 200:
            raise NoAnswer(f"no new session: status {status}")
        return _decode(body, Session)

    async def show(self, session_id: str) -> bool:
        """Let the attached terminal show a session; a draft in it stays as it is."""
        status, _body = await self._ask("POST", "/tui/select-session", {"sessionID": session_id})
        return status == 200

    async def is_busy(self, session_id: str) -> bool:
        """Whether something runs in the session."""
        _status, body = await self._ask("GET", "/session/status")
        found = _decode(body, dict[str, Status]).get(session_id)
        return found is not None and found.type != "idle"

    async def messages(self, session_id: str) -> list[Stored]:
        """Return the newest messages of a session, oldest first."""
        status, body = await self._ask("GET", f"/session/{session_id}/message?limit={PAGE}")
        return _decode(body, list[Stored]) if status == 200 else []

    async def prompt(self, session_id: str, body: dict[str, Any], timeout_s: float) -> int:
        """Hand a message over; return the status: 204 is taken, 404 no such session."""
        path = f"/session/{session_id}/prompt_async"
        status, _body = await self._ask("POST", path, body, timeout_s)
        return status

    async def abort(self, session_id: str) -> bool:
        """Stop what runs in the session."""
        status, _body = await self._ask("POST", f"/session/{session_id}/abort")
        return status == 200

    async def summarize(self, session_id: str, model: dict[str, str], timeout_s: float) -> bool:
        """Shorten the context; answered when it is done."""
        path = f"/session/{session_id}/summarize"
        status, _body = await self._ask("POST", path, model, timeout_s)
        return status == 200

    @contextlib.asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[Event]]:
        """Open the stream of events; what can't be read is left out."""
        limits = httpx2.Timeout(LOOK_S, read=SILENCE_S)
        try:
            async with self._http.sse("/event", timeout=limits, max_event_size=EVENT_MAX) as source:
                if source.response.status_code != 200:
                    raise NoAnswer(f"no events: status {source.response.status_code}")
                yield _events(source)
        except _NEVER_SENT as error:
            raise NotReached(f"nobody listens: {error!r}") from error
        except httpx2.TransportError as error:
            raise NoAnswer(f"the stream of events broke: {error!r}") from error

    async def _ask(
        self, method: str, path: str, body: Any = None, timeout_s: float = LOOK_S
    ) -> tuple[int, bytes]:
        content = None if body is None else msgspec.json.encode(body)
        headers = {} if body is None else {"content-type": "application/json"}
        try:
            response = await self._http.request(
                method, path, content=content, headers=headers, timeout=timeout_s
            )
        except _NEVER_SENT as error:
            raise NotReached(f"nobody listens: {error!r}") from error
        except httpx2.TransportError as error:
            raise NoAnswer(f"{method} {path} was not answered: {error!r}") from error
        if response.status_code in (401, 403):
            raise NotReached("the server takes no requests of ours: wrong name or password")
        if response.status_code >= 500:
            raise NoAnswer(f"{method} {path} failed: status {response.status_code}")
        return response.status_code, response.content


async def _events(source: httpx2.EventSource) -> AsyncIterator[Event]:
    async for frame in source:
        try:
            yield msgspec.json.decode(frame.data, type=Event)
        except msgspec.DecodeError:
            continue


def _decode(body: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise NoAnswer(f"an answer of an unknown shape: {error}") from error
