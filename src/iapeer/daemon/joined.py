"""A transport that sends the head and the body of an answer together.

uvicorn writes them one after the other: two system calls, and on the other side two wake-ups.
"""

from __future__ import annotations

import asyncio
from typing import Any


class JoinedTransport:
    """Keeps the first piece of what is written back, for the second one or the loop's next round.

    Everything else is the transport's own.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._kept = b""

    def write(self, data: bytes) -> None:
        """Send what was kept and `data`, or keep `data` where nothing was."""
        if self._kept:
            kept, self._kept = self._kept, b""
            self._transport.write(kept + data)
        elif data:
            self._kept = bytes(data)
            self._loop.call_soon(self._send_kept)

    def close(self) -> None:
        """Send what was kept, then close."""
        self._send_kept()
        self._transport.close()

    def abort(self) -> None:
        """Close at once; what was kept is lost like everything not sent yet."""
        self._kept = b""
        self._transport.abort()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes are not sent yet."""
        return len(self._kept) + self._transport.get_write_buffer_size()

    def _send_kept(self) -> None:
        kept, self._kept = self._kept, b""
        if kept:
            self._transport.write(kept)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
