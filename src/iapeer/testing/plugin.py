"""The public pytest plugin: a daemon on a throw-away root, one fixture away.

def test_my_peer(iapeer_daemon):
iapeer_daemon.create("ann", "bob")
iapeer_daemon.start()
assert iapeer_daemon.send("ann", "hello", "demo-bob")["ok"]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .daemon import TestDaemon


@pytest.fixture
def iapeer_daemons() -> Iterator[Callable[..., TestDaemon]]:
    """Make daemons on roots of their own, not yet started; keyword arguments are environment."""
    # A plugin is imported in every pytest run of the environment: nothing heavy before use.
    from .daemon import TestDaemon

    made: list[TestDaemon] = []

    def make(**variables: str) -> TestDaemon:
        made.append(TestDaemon.make(**variables))
        return made[-1]

    yield make
    for daemon in made:
        daemon.clean_up()


@pytest.fixture
def iapeer_daemon(iapeer_daemons: Callable[..., TestDaemon]) -> TestDaemon:
    """One daemon on a root of its own, not yet started."""
    return iapeer_daemons()
