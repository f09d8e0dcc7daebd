from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.unit.sessions.appserver.app_server import AppServer


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short one: a unix socket's path holds 107 bytes."""
    found = Path(tempfile.mkdtemp(prefix="iap", dir="/tmp"))
    yield found
    shutil.rmtree(found)


@pytest.fixture
async def server(folder: Path, anyio_backend: str) -> AsyncIterator[AppServer]:
    running = AppServer(folder / "c.sock")
    await running.start()
    yield running
    await running.stop()
