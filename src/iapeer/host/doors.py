"""The ways into a runtime; what a runtime's own server needs is loaded by its first session."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module

from iapeer.core.settings import Settings
from iapeer.sessions.doors.inbox import InboxDoor
from iapeer.sessions.doors.paste import PaneDoor, PasteDoor
from iapeer.sessions.doors.port import Door


class Doors(Mapping[str, Door]):
    """Every door by its name, made when it is first asked for and kept."""

    def __init__(self, settings: Settings) -> None:
        self._make: dict[str, Callable[[], Door]] = {
            "paste": lambda: PasteDoor(settings),
            "pane": lambda: PaneDoor(settings),
            "inbox": InboxDoor,
            "appserver": _appserver,
            "http": _http,
        }
        self._made: dict[str, Door] = {}

    def __getitem__(self, name: str) -> Door:
        """Return a door. Raises KeyError for a name that no runtime may have."""
        if name not in self._made:
            self._made[name] = self._make[name]()
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        """Yield the names of all doors."""
        return iter(self._make)

    def __len__(self) -> int:
        """Return how many doors there are."""
        return len(self._make)


def _appserver() -> Door:
    made: Door = import_module("iapeer.sessions.doors.appserver").AppServerDoor()
    return made


def _http() -> Door:
    made: Door = import_module("iapeer.sessions.doors.http").HttpDoor()
    return made
