"""Where one request ends and the next begins, in what a connection sends.

The parser takes all it is given at once: several requests, or a header of any length. So it is
given pieces: each ends where a part of one request ends, and a head, a trailer or the line of a
chunk is whole and in bounds. What a piece means is the parser's to say; where it says otherwise
than this module, the request is refused.
"""

from __future__ import annotations

import re
from enum import Enum, auto

_HEAD_END = re.compile(rb"\n\r?\n")
_LINE_END = re.compile(rb"\n")
_REQUEST_LINE = re.compile(rb"[A-Z]+ /[!\"$-~]* HTTP/1\.[01]\r\n")
"""Origin form only: no proxy's absolute form, and no other protocol that the parser knows."""
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,16}")
_UPGRADE = re.compile(rb"\nupgrade:", re.IGNORECASE)
_SPACE = 0x20


class BadRequest(Exception):
    """The bytes are no request that we serve; the connection can't be used any more."""


class _Part(Enum):
    HEAD = auto()
    PARSED = auto()
    """The head was handed out; the parser must say now what follows it."""
    BODY = auto()
    CHUNK_SIZE = auto()
    CHUNK = auto()
    TRAILERS = auto()
    DUE = auto()
    """The last byte was handed out; the parser must find the end of the request now."""


class Framing:
    """Cuts the bytes of one connection; `limit` bounds a head, the trailers, and a chunk's line.

    It keeps what is not handed out yet: less than `limit` while the caller cuts, and all that comes
    while the caller does not.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = bytearray()
        self._searched = 0
        self._part = _Part.HEAD
        self._missing = 0
        self._trailers = 0

    @property
    def between(self) -> bool:
        """Return whether no request has begun: what comes next is a head."""
        return self._part is _Part.HEAD

    @property
    def waiting(self) -> bool:
        """Return whether anything is kept."""
        return bool(self._kept)

    def add(self, data: bytes) -> None:
        """Take what has come."""
        self._kept += data

    def begin(self, length: int, *, chunked: bool) -> None:
        """Learn from the head just handed out what follows it; raises BadRequest."""
        if self._part is not _Part.PARSED:
            raise BadRequest("a head where none was")
        self._missing = length
        self._trailers = 0
        if chunked:
            self._part = _Part.CHUNK_SIZE
        else:
            self._part = _Part.BODY if length else _Part.DUE

    def end(self) -> None:
        """Learn that the request is complete; raises BadRequest where more of it was to come."""
        if self._part is not _Part.DUE:
            raise BadRequest("the end of a request where none was")
        self._part = _Part.HEAD

    def cut(self) -> bytes | bytearray | None:
        """Hand out the next piece, None until it is whole; raises BadRequest."""
        if not self._kept:
            return None
        if self._part is _Part.HEAD:
            return self._head()
        if self._part is _Part.CHUNK_SIZE or self._part is _Part.TRAILERS:
            return self._line()
        if self._part is _Part.BODY or self._part is _Part.CHUNK:
            return self._content()
        raise BadRequest("the parser has not found what was handed out")

    def _head(self) -> bytes | None:
        if self._kept[0] <= _SPACE:
            raise BadRequest("no request line")
        end = self._found(_HEAD_END)
        if end is None:
            return None
        head = bytes(self._take(end))
        if not _REQUEST_LINE.match(head):
            raise BadRequest("no request line that is served here")
        self._part = _Part.PARSED
        # An offer to speak another protocol, which may be left alone; the parser would take it, and
        # the body for that protocol's first bytes.
        return _UPGRADE.sub(b"\nx-upgrade:", head) if b"\nupgrade:" in head.lower() else head

    def _found(self, end: re.Pattern[bytes]) -> int | None:
        """Return where the next line or head ends."""
        found = end.search(self._kept, max(0, self._searched - 2), self._limit)
        if found is not None:
            self._searched = 0
            return found.end()
        if len(self._kept) >= self._limit:
            raise BadRequest("too long")
        self._searched = len(self._kept)
        return None

    def _line(self) -> bytearray | None:
        end = self._found(_LINE_END)
        if end is None:
            return None
        line = self._take(end)
        if self._part is _Part.TRAILERS:
            self._trailers += len(line)
            if self._trailers > self._limit:
                raise BadRequest("too many trailers")
            if line == b"\r\n":
                self._part = _Part.DUE
            return line
        size = _CHUNK_SIZE.match(line)
        if size is None:
            raise BadRequest("no size of a chunk")
        self._missing = int(size[0], 16)
        if self._missing:
            self._missing += len(b"\r\n")
        self._part = _Part.CHUNK if self._missing else _Part.TRAILERS
        return line

    def _content(self) -> bytearray:
        piece = self._take(min(self._missing, len(self._kept)))
        self._missing -= len(piece)
        if not self._missing:
            self._part = _Part.DUE if self._part is _Part.BODY else _Part.CHUNK_SIZE
        return piece

    def _take(self, count: int) -> bytearray:
        if count == len(self._kept):
            piece, self._kept = self._kept, bytearray()
            return piece
        piece = self._kept[:count]
        del self._kept[:count]
        return piece
