"""The Codex app-server: a wire, what its frames mean, and the channel a session holds.

    wire     JSON-RPC over a WebSocket on a unix socket
    line     a connection that comes back by itself
    frames   the few members of its records that are read here
    requests what is asked of the server
    reading  notifications and turns -> facts
    past     what has happened before, joined to the news
    nudge    starts what is left in a queue
    link     what one connection knows of the threads
    terminal which thread the attached terminal talks in
    channel  subscriptions, news, and the requests the door makes

The protocol is marked experimental by its vendor: everything here was measured with 0.169.0.
"""

from __future__ import annotations

from .channel import AppServerChannel, ChannelStatus
from .requests import Whereabouts

__all__ = ["AppServerChannel", "ChannelStatus", "Whereabouts"]
