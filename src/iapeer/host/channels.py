"""Which connection a door speaks through; each kind is loaded only when a session needs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module

from iapeer.sessions.channel import Channel, Report
from iapeer.sessions.model import TmuxSession

Make = Callable[[TmuxSession, Report], Channel]


def channels() -> Mapping[str, Make]:
    """Return what makes the connection to a session's own server, by door."""
    return {"appserver": _appserver, "http": _http}


def known_native_id(session: TmuxSession) -> str:
    """Return the conversation the runtime has told us of, empty until it has.

    Where the runtime chooses the id, a fresh session's row holds our own until then.
    """
    return "" if session.native_id == session.id else session.native_id


def _appserver(session: TmuxSession, report: Report) -> Channel:
    made: Channel = import_module("iapeer.sessions.appserver.channel").AppServerChannel(
        session.endpoint,
        report,
        native_id=known_native_id(session),
        since=session.started_at,
    )
    return made


def _http(session: TmuxSession, report: Report) -> Channel:
    made: Channel = import_module("iapeer.sessions.httpserver.channel").HttpChannel(
        session.endpoint, report, native_id=known_native_id(session)
    )
    return made
