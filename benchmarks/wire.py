"""A connection that is kept, and requests encoded beforehand: the client costs next to nothing."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Self

import msgspec


class RequestFailed(RuntimeError):
    """The other side refused, or its answer was no answer; the text holds its beginning."""


def encode(
    path: str, body: object | None = None, headers: Mapping[str, str] | None = None
) -> bytes:
    """Return one request as bytes: POST with a JSON body, GET without one."""
    content = b"" if body is None else msgspec.json.encode(body)
    lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1"]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    lines += [
        f"{name}: {value}" for name, value in {"Host": "localhost", **(headers or {})}.items()
    ]
    return "\r\n".join([*lines, "", ""]).encode() + content


class Answers:
    """Puts one answer together from what a socket gives."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> bytes | None:
        """Take bytes; return the body when the answer is complete. Raises RequestFailed."""
        if not data:
            raise RequestFailed("the connection ended")
        self._data += data
        head, found, body = self._data.partition(b"\r\n\r\n")
        if not found:
            return None
        lower = head.lower()
        begin = lower.index(b"content-length:") + 15
        end = lower.find(b"\r\n", begin)
        if len(body) < int(lower[begin : end if end > 0 else None]):
            return None
        if not head.startswith(b"HTTP/1.1 200"):
            raise RequestFailed(self._data[:2000].decode(errors="replace"))
        self._data.clear()
        return bytes(body)


class Connection:
    """One kept connection, to a unix socket's path or a loopback port."""

    def __init__(self, where: str | int) -> None:
        if isinstance(where, str):
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.connect(where)
        else:
            self.sock = socket.create_connection(("127.0.0.1", where))
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.settimeout(60)
        self._answers = Answers()

    def ask(self, request: bytes) -> bytes:
        """Send one request and return the body of its answer. Raises RequestFailed."""
        self.sock.sendall(request)
        body = None
        while body is None:
            body = self._answers.feed(self.sock.recv(1 << 16))
        return body

    def time(self, request: bytes) -> float:
        """Return the seconds one request takes."""
        began = time.perf_counter()
        self.ask(request)
        return time.perf_counter() - began

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.sock.close()


def per_second(where: str, requests: Sequence[bytes], each: int) -> float:
    """Return answers per second: one connection a request, each repeated, all at once."""
    with selectors.DefaultSelector() as selector:
        for request in requests:
            connection = Connection(where)
            selector.register(connection.sock, selectors.EVENT_READ, [request, each, Answers()])
        began = time.perf_counter()
        for key in selector.get_map().values():
            _socket(key).sendall(key.data[0])
        while selector.get_map():
            for key, _ in selector.select(60):
                _go_on(selector, key)
        return len(requests) * each / (time.perf_counter() - began)


def _go_on(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    sock = _socket(key)
    if key.data[2].feed(sock.recv(1 << 16)) is None:
        return
    key.data[1] -= 1
    if key.data[1]:
        sock.sendall(key.data[0])
    else:
        selector.unregister(sock)
        sock.close()


def _socket(key: selectors.SelectorKey) -> socket.socket:
    sock = key.fileobj
    if not isinstance(sock, socket.socket):
        raise TypeError(sock)
    return sock
