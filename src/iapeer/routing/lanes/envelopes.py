"""A stored message as its reader gets it."""

from __future__ import annotations

from iapeer.core.envelope import Envelope
from iapeer.core.identity import parse_identity, read_intelligence
from iapeer.storage.ledger.rows import MessageRow


def envelope_of(row: MessageRow) -> Envelope:
    """Return a stored message as the reader gets it, marked if it may be the second time."""
    sender = parse_identity(row.sender)
    if sender is None:
        raise ValueError(f"message {row.id} has no valid sender: {row.sender!r}")
    return Envelope(
        from_personality=sender.personality,
        from_runtime=sender.runtime,
        from_intelligence=read_intelligence(row.intelligence),
        body=row.body,
        attachments=row.attachments,
        topic=row.topic,
        ts=row.accepted_ts,
        id=row.id,
        dup="maybe" if row.dup else None,
    )
