from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.integration.daemon.support import Edge, cleanup, make_root, running


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def root() -> Iterator[Path]:
    made = make_root()
    yield made
    cleanup(made)


@pytest.fixture
async def edge(root: Path) -> AsyncIterator[Edge]:
    async with running(root) as started:
        yield started
