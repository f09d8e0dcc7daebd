"""One connection of the daemon's HTTP server: who is there, what it may send, how long it may take.

uvicorn's protocol around httptools, with four things of our own. `framing.py` feeds the parser one
request at a time: uvicorn would queue what comes behind it, and tell only the last of the queue
when the connection is lost. What the parser lets pass and should not is refused. Every state in
which the other side is waited for has a deadline. And an answer goes out in one write
(`joined.py`).
"""

from __future__ import annotations

import asyncio
import socket
from typing import cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from iapeer.daemon.auth import Listener
from iapeer.daemon.framing import BadRequest, Framing
from iapeer.daemon.joined import JoinedTransport
from iapeer.daemon.listeners import peer_of

HEAD_BYTES = 32 * 1024
"""Largest request line and headers; the same for trailers and for the line of a chunk."""
HEAD_S = 10.0
"""How long a request head may take to arrive; without it half a request stays for ever."""
LINGER_S = 2.0
"""How long the rest of a refused body is read and dropped after the answer."""
CLOSE_S = 30.0
"""How long a last answer may take to be read."""
TCP_CONNECTIONS_MAX = 256
"""Every local account reaches TCP; what is beyond this must not cost the unix socket anything."""


class PeerProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which also tells who is connected and gives no time to half requests.

    `scope["state"]` has `listener`, `peer` (PeerCred or None) and `abort`.
    """

    listener = Listener.TCP
    _timer: asyncio.TimerHandle | None = None
    _in_body = False
    """Whether what comes belongs to `cycle`, whose head is complete."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Read the other side's credentials before its first byte."""
        transport = cast("asyncio.Transport", JoinedTransport(transport, self.loop))
        super().connection_made(transport)
        self._framing = Framing(HEAD_BYTES)
        sock = transport.get_extra_info("socket")
        unix = sock.family == socket.AF_UNIX
        self.listener = Listener.UNIX if unix else Listener.TCP
        self.app_state = {
            "listener": self.listener,
            "peer": peer_of(sock) if unix else None,
            "abort": transport.abort,
        }
        self._arm(HEAD_S)
        if not unix and self._tcp_connections() > TCP_CONNECTIONS_MAX:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Give the parser what is whole, and the head of a request a deadline."""
        self._unset_keepalive_if_required()
        self._framing.add(data)
        self._parse()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadline."""
        self._disarm()
        super().connection_lost(exc)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, not a trailer: those come when the headers have been judged already."""
        if not self._in_body:
            super().on_header(name, value.rstrip(b" \t"))

    def on_headers_complete(self) -> None:
        """Refuse what leaves open who is meant or where the body ends, else start the request.

        Raises BadRequest.
        """
        length = self._judge()
        self._framing.begin(length or 0, chunked=length is None)
        super().on_headers_complete()
        self._in_body = True

    def on_message_complete(self) -> None:
        """Agree with the parser about the end; raises BadRequest."""
        self._framing.end()
        self._in_body = False
        if self.cycle.response_complete:
            self._disarm()  # the rest of a refused body has come in time
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on with the next request, or with a body that was refused, for a moment only."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._arm(CLOSE_S)
        elif not self._framing.between:
            self._arm(LINGER_S)
        elif self._framing.waiting:
            self._unset_keepalive_if_required()
            self._parse()

    def send_400_response(self, msg: str) -> None:
        """Refuse a head, or the rest of a body, and close: a running request hears that too."""
        if self._in_body and self.cycle.response_started:
            self.transport.close()
        else:
            super().send_400_response(msg)
        if self._answering():
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._arm(CLOSE_S)

    def timeout_keep_alive_handler(self) -> None:
        """Drop an idle connection whose other side has not read its answer: a close would wait."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def _parse(self) -> None:
        """Feed the parser as far as it may go: what follows a request waits for its answer."""
        framing = self._framing
        try:
            while not (framing.between and self._answering()):
                piece = framing.cut()
                if piece is None:
                    break
                self.parser.feed_data(piece)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, BadRequest):
            self.send_400_response("Invalid HTTP request received.")
            return
        if self._answering():
            self._disarm()
            if framing.between and framing.waiting:
                self.flow.pause_reading()
        elif self._timer is None:
            self._arm(HEAD_S)

    def _judge(self) -> int | None:
        """Return the length of the body, None for a chunked one; raises BadRequest."""
        if self.parser.should_upgrade():
            raise BadRequest("CONNECT")
        hosts = 0
        length: int | None = 0
        for name, value in self.headers:
            if name == b"host":
                hosts += 1
            elif name == b"content-length":
                length = int(value)  # the parser has let digits pass, and one such header
            elif name == b"transfer-encoding":
                if value.lower() != b"chunked":
                    raise BadRequest("another encoding than chunked")
                length = None
        if hosts > 1 or (not hosts and self.parser.get_http_version() != "1.0"):
            raise BadRequest("not one Host")
        return length

    def _answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn's annotation leaves the None out
        return cycle is not None and not cycle.response_complete

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._timer = self.loop.call_later(seconds, self.transport.abort)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tcp_connections(self) -> int:
        return sum(
            isinstance(other, PeerProtocol) and other.listener is Listener.TCP
            for other in self.connections
        )
