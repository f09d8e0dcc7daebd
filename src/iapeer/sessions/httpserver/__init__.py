"""The server inside opencode: a client, what its events mean, and the channel a session holds.

    ids      message ids that the server sorts and we can read back
    frames   the few members of its records that are read here
    client   its HTTP requests and its stream of events
    reading  events and messages -> facts
    history  where a message is in what the server keeps
    channel  connection, session, recovery; the requests the door makes

Everything here was measured with opencode 1.18.33.
"""

from __future__ import annotations

from .channel import HttpChannel
from .errors import NoAnswer, NotReached
from .history import Found

__all__ = ["Found", "HttpChannel", "NoAnswer", "NotReached"]
