"""The line of delivery.log about one send, the same for every way in."""

from __future__ import annotations

import msgspec

from iapeer.core.outcomes import SendResult
from iapeer.storage.logs import Delivery, delivery_record

from .admission import SendRequest


class Outcome(msgspec.Struct, frozen=True):
    """What came of one call: a result, or the error's message."""

    request: SendRequest
    elapsed_s: float
    result: SendResult | None = None
    error: str = ""


def delivery_line(now: float, outcome: Outcome) -> str:
    """Return the line; `now` is epoch seconds. Never holds a body, only its length."""
    request, result = outcome.request, outcome.result
    draft = request.draft
    queued = result is not None and not result.delivered
    return delivery_record(
        now,
        Delivery(
            caller=request.caller.identity.address,
            to=draft.to,
            ok=result is not None,
            elapsed_ms=round(outcome.elapsed_s * 1000),
            length=len(draft.message),
            attachments=len(draft.attachments),
            runtime=draft.runtime,
            via=f"{result.runtime}-{result.personality}" if result else None,
            woke=result.woke if result else False,
            queued=queued,
            queue_kind=result.reason or None if result and queued else None,
            queue_depth=result.queue_depth if result and queued else None,
            topic=draft.topic,
            error=outcome.error or None,
            path="cli" if request.path == "cli" else None,
            message_id=result.message_id if result else None,
            state=result.state.value if result else None,
        ),
    )
