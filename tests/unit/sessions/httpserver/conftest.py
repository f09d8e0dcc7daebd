from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.unit.sessions.httpserver.fake_opencode import FakeOpencode


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def server(anyio_backend: str) -> AsyncIterator[FakeOpencode]:
    running = FakeOpencode()
    await running.start()
    yield running
    await running.stop()
