"""Ids for messages in somebody else's conversation, from which ours can be read back.

opencode's own look like `msg_20477a5a5001Qty4KvrLlsmgxK`: milliseconds since the epoch times 4096
plus a counter, the lower 48 bits of it in hexadecimal, then 14 random characters. It sorts by them,
so ours begin in the same way. What follows there is our marker, which no id of theirs can hold: its
alphabet has no `_`.
"""

from __future__ import annotations

import re

from iapeer.core.ids import MESSAGE_ID_LENGTH

_OURS = re.compile(rf"msg_[0-9a-f]{{12}}_([a-z2-7]{{{MESSAGE_ID_LENGTH}}})-[0-9]+")
_BITS = 48
_PER_MS = 4096


def native_message_id(marker: str, now: float) -> str:
    """Return the id under which an attempt is handed over at `now` (wall time, seconds).

    `marker` is `<message id>-<attempt>`. Ids of later times sort later, ours and theirs.
    """
    moment = (int(now * 1000) * _PER_MS) & ((1 << _BITS) - 1)
    return f"msg_{moment:012x}_{marker}"


def message_id_of(native_id: str) -> str:
    """Return the message id in a native one of ours, empty for anybody else's."""
    found = _OURS.fullmatch(native_id)
    return found[1] if found else ""


def marker_of(native_id: str) -> str:
    """Return the marker in a native id of ours, empty for anybody else's."""
    return native_id.split("_", 2)[2] if message_id_of(native_id) else ""
