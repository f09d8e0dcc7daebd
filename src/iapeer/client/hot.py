"""One request to the daemon over its unix socket, for hooks and `send`: 30 ms of process in all.

Nothing but `_socket`, os, a small JSON and the names of variables is imported (CI checks it), for
`socket` and `json` cost 12 ms, as much as the bare interpreter. So errors are two small classes of
this module's own. This is the only HTTP written by hand: one request, one answer with a length or
up to the end of the connection; anything more uses httpx2.
"""

from __future__ import annotations

import _socket
import os

from iapeer.client import quickjson
from iapeer.core import env

ANSWER_MAX = 8 << 20
"""Bytes of the largest answer that is read."""
SEND_TIMEOUT_S = 30.0
"""Longest wait of `send`: the daemon answers after 20 s at the latest, for a waking recipient."""

_JSON = "application/json"
_ILLEGAL = frozenset(map(chr, [*range(33), 127]))


class DaemonUnreachable(OSError):
    """Nobody answers at the socket, or not in time."""


class BadAnswer(Exception):
    """Somebody answered, but not as our daemon does."""


def socket_path(environ: dict[str, str] | os._Environ[str]) -> str:
    """Return the daemon's socket as the environment says, else below the default root."""
    explicit = environ.get(env.DAEMON_SOCKET)
    if explicit:
        return explicit
    home = environ.get(env.HOME) or "/nonexistent"
    root = environ.get(env.ROOT) or os.path.join(home, ".iapeer")
    return os.path.join(root, "state", "iapeer", "router.sock")


def send(  # noqa: PLR0913 - the fields of one message, and no struct may be imported here
    environ: dict[str, str] | os._Environ[str],
    to: str,
    message: str,
    *,
    runtime: str | None = None,
    topic: str | None = None,
    attachments: tuple[str, ...] = (),
    sender: str | None = None,
    key: str | None = None,
    timeout_s: float = SEND_TIMEOUT_S,
) -> tuple[int, object]:
    """Send one message as the command line does; returns HTTP status and decoded body.

    The session's token, when the environment has one, goes along and decides who is speaking.
    Raises as `request`.
    """
    fields: dict[str, object] = {"to": to, "message": message}
    optional = {"runtime": runtime, "topic": topic, "from": sender, "key": key}
    fields.update({name: value for name, value in optional.items() if value is not None})
    if attachments:
        fields["attachments"] = attachments
    return request(
        "POST",
        "/api/v1/send",
        fields,
        socket_path=socket_path(environ),
        headers={**token_header(environ), "X-IAPeer-Entrance": "cli"},
        timeout_s=timeout_s,
    )


def token_header(environ: dict[str, str] | os._Environ[str]) -> dict[str, str]:
    """Return the headers that prove who is calling: session token and static bearer, if set."""
    headers = {}
    if token := environ.get(env.SESSION_TOKEN):
        headers["X-IAPeer-Token"] = token
    if bearer := environ.get(env.BEARER_TOKEN):
        headers["Authorization"] = f"Bearer {bearer}"
    return headers


def request(  # noqa: PLR0913 - what a request consists of
    method: str,
    path: str,
    body: object = None,
    *,
    socket_path: str,  # noqa: A002,RUF100
    headers: dict[str, str] | None = None,
    timeout_s: float = 10.0,
) -> tuple[int, object]:
    """Make one request and return its status and decoded JSON body (None when it is empty).

    `body` is encoded as JSON, bytes are sent as they are, None is no body. `timeout_s` bounds
    the whole exchange. Raises DaemonUnreachable when nobody answers in time, BadAnswer when the
    answer is no JSON answer of bounded size, ValueError for a path or header that can't be sent.
    """
    data = _encode(method, path, body, headers or {})
    deadline = _now() + timeout_s
    try:
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            sock.settimeout(timeout_s)
            sock.connect(socket_path)
            _write(sock, data)
            raw = _read(sock, deadline)
        finally:
            sock.close()
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise DaemonUnreachable(f"no daemon answers at {socket_path}: {reason}") from error
    return _decode(raw)


def _encode(method: str, path: str, body: object, headers: dict[str, str]) -> bytes:
    content = body if isinstance(body, bytes) else b""
    if body is not None and not isinstance(body, bytes):
        content = quickjson.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close"]
    if body is not None:
        lines += [f"Content-Type: {_JSON}", f"Content-Length: {len(content)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if not _ILLEGAL.isdisjoint(method + path) or any("\r" in s or "\n" in s for s in lines):
        raise ValueError("a request path or header holds white space or a line break")
    return "\r\n".join([*lines, "", ""]).encode("ascii") + content


def _write(sock: _socket.socket, data: bytes) -> None:
    # A daemon that refuses a request may close before it read all: its answer is still there.
    try:
        sock.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        return


def _read(sock: _socket.socket, deadline: float) -> bytes:
    """Read to the end of the answer: its length if it says one, else the connection's end."""
    data = bytearray()
    size = ANSWER_MAX
    while len(data) < size:
        left = deadline - _now()
        if left <= 0:
            raise TimeoutError("timed out")
        sock.settimeout(left)
        chunk = sock.recv(65536)
        if not chunk:
            break
        data += chunk
        if len(data) > ANSWER_MAX:
            raise BadAnswer(f"the answer is longer than {ANSWER_MAX} bytes")
        head_end = data.find(b"\r\n\r\n")
        if head_end >= 0 and size == ANSWER_MAX:
            length = _headers(bytes(data[:head_end])).get("content-length", "")
            size = head_end + 4 + int(length) if length.isdecimal() else size
    return bytes(data)


def _decode(raw: bytes) -> tuple[int, object]:
    head, found, content = raw.partition(b"\r\n\r\n")
    if not found:
        raise BadAnswer("the answer ends within its headers")
    status = head.split(b" ", 2)
    if len(status) < 2 or not status[0].startswith(b"HTTP/1.") or not status[1].isdigit():
        raise BadAnswer("the answer is no HTTP")
    headers = _headers(head)
    if "chunked" in headers.get("transfer-encoding", "").lower():
        raise BadAnswer("the answer is chunked")
    length = headers.get("content-length")
    if length is not None and length != str(len(content)):
        raise BadAnswer(f"the answer has {len(content)} bytes, its header says {length}")
    try:
        return int(status[1]), quickjson.loads(content) if content else None
    except ValueError:
        raise BadAnswer("the answer is no JSON") from None


def _headers(head: bytes) -> dict[str, str]:
    pairs = (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:])
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _now() -> float:
    """Return a clock that only goes forward, in seconds, without importing one."""
    return os.times().elapsed
