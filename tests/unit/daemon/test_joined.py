"""The transport that joins an answer's head and body, over one that only remembers."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from iapeer.daemon.joined import JoinedTransport

pytestmark = pytest.mark.anyio


class Remembering:
    def __init__(self) -> None:
        self.did: list[Any] = []

    def write(self, data: bytes) -> None:
        self.did.append(data)

    def close(self) -> None:
        self.did.append("close")

    def abort(self) -> None:
        self.did.append("abort")

    def get_write_buffer_size(self) -> int:
        return 100

    def is_closing(self) -> bool:
        return False


def _joined() -> tuple[JoinedTransport, list[Any]]:
    under = Remembering()
    loop = asyncio.get_running_loop()
    return JoinedTransport(cast("asyncio.Transport", under), loop), under.did


async def test_a_head_and_a_body_are_one_write_and_nothing_comes_twice() -> None:
    transport, did = _joined()
    for piece in (b"head ", b"body", b""):
        transport.write(piece)
    assert did == [b"head body"]
    await asyncio.sleep(0)
    assert did == [b"head body"]
    assert not transport.is_closing()


async def test_a_piece_that_stays_alone_goes_in_the_next_round() -> None:
    transport, did = _joined()
    transport.write(b"event")
    assert (did, transport.get_write_buffer_size()) == ([], 105)
    await asyncio.sleep(0)
    assert (did, transport.get_write_buffer_size()) == ([b"event"], 100)


async def test_a_close_sends_what_was_kept_and_an_abort_does_not() -> None:
    transport, did = _joined()
    transport.write(b"last words")
    transport.close()
    assert did == [b"last words", "close"]
    transport, did = _joined()
    transport.write(b"lost")
    transport.abort()
    await asyncio.sleep(0)
    assert did == ["abort"]
