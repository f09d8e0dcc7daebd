"""Every request that came, for assertions: bodies byte for byte, secrets as digests only."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator

import msgspec

from iapeer.core.errors import IapeerError

from .asks import Ask, Protocol, read_ask

KEEP = 1_000
"""Requests kept; the oldest go first."""

KEEP_BYTES = 256 * 1024 * 1024
"""Bytes of bodies kept in all: 1,000 bodies at their limit would be 16 GB."""

_SECRET = frozenset(
    {"authorization", "proxy-authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie"}
)


def secret_digest(value: str) -> str:
    """Return what is kept in place of a secret header's value."""
    return "sha256:" + hashlib.sha256(value.encode("latin-1", "replace")).hexdigest()


class RecordedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request as it came: `number` counts from 1, header names are in lower case.

    `protocol` is None for requests that ask no model (lists, token counts, unknown paths).
    """

    number: int
    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    protocol: Protocol | None

    def header(self, name: str) -> str | None:
        """Return the header's value (a secret's digest), or None when it did not come."""
        return next((value for key, value in self.headers if key == name.lower()), None)

    @property
    def credentials(self) -> str:
        """The digest of the key the request came with; empty without one."""
        return self.header("authorization") or self.header("x-api-key") or ""

    @property
    def ask(self) -> Ask | None:
        """The request decoded; None when it asks no model or can't be read."""
        if self.protocol is None:
            return None
        try:
            return read_ask(self.protocol, self.body)
        except IapeerError:
            return None

    @property
    def has_tools(self) -> bool:
        """Whether tools were offered: titles and other side requests come without."""
        ask = self.ask
        return ask is not None and bool(ask.tools)

    @property
    def user_texts(self) -> tuple[str, ...]:
        """The user's texts, oldest first, without the notes CLIs put between them."""
        return self._texts("user")

    @property
    def system_texts(self) -> tuple[str, ...]:
        """System prompt, system and developer messages, and the notes of the CLI."""
        return self._texts("system")

    @property
    def tool_results(self) -> tuple[str, ...]:
        """What tools answered, oldest first."""
        return self._texts("result")

    def _texts(self, kind: str) -> tuple[str, ...]:
        ask = self.ask
        return ask.texts(kind) if ask is not None else ()


class Recorder:
    """The last `KEEP` requests, of `KEEP_BYTES` together."""

    def __init__(self, keep: int = KEEP, keep_bytes: int = KEEP_BYTES) -> None:
        self._kept: deque[RecordedRequest] = deque(maxlen=keep)
        self._keep_bytes = keep_bytes
        self.count = 0

    def __iter__(self) -> Iterator[RecordedRequest]:
        return iter(tuple(self._kept))

    def add(self, request: RecordedRequest) -> None:
        """Keep a request and drop the oldest ones there is no room for."""
        self._kept.append(request)
        total = sum(len(kept.body) for kept in self._kept)
        while total > self._keep_bytes and len(self._kept) > 1:
            total -= len(self._kept.popleft().body)

    def next_number(self) -> int:
        """Count one more request."""
        self.count += 1
        return self.count


def clean_headers(raw: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[str, str], ...]:
    """Decode headers and put digests in place of secrets."""
    return tuple(_clean(name.decode("latin-1").lower(), value) for name, value in raw)


def _clean(name: str, value: bytes) -> tuple[str, str]:
    text = value.decode("latin-1")
    return name, secret_digest(text) if name in _SECRET else text
