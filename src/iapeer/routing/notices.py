"""What the core itself has to say: a sender learns when its message can't be delivered.

Notices come from `core-iapeer`, are never sent about a notice, and wake nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from iapeer.core.errors import StorageError
from iapeer.core.identity import CORE_ADDRESS, Identity, Intelligence, parse_identity
from iapeer.core.ids import new_message_id
from iapeer.core.text import one_line
from iapeer.storage.ledger import messages
from iapeer.storage.ledger.rows import MessageRow, NewMessage

from .clocktime import local_iso

if TYPE_CHECKING:
    from iapeer.core.clock import Clock
    from iapeer.core.settings import Settings
    from iapeer.registry.index import Registry
    from iapeer.storage.ledger.store import Ledger

    from .services import LifecycleLog

QUOTE_CHARS = 80
TOPIC = "delivery-failed"


class Notices:
    """Writes notices as ordinary messages: durable, ordered, traceable."""

    def __init__(
        self,
        ledger: Ledger,
        registry: Registry,
        clock: Clock,
        settings: Settings,
        log: LifecycleLog,
    ) -> None:
        self._ledger = ledger
        self._registry = registry
        self._clock = clock
        self._settings = settings
        self._tasks: set[asyncio.Task[None]] = set()
        self.deliver: Callable[[str, Identity], None] = lambda _uid, _identity: None
        self._log = log

    def failed(self, row: MessageRow) -> None:
        """Tell the sender of a message that became final without being delivered."""
        sender = parse_identity(row.sender)
        if sender is None or row.sender == CORE_ADDRESS:
            return
        record = self._registry.snapshot(allow_stale=True).get(sender.personality)
        if record is None or record.uid != row.sender_uid:
            return
        quote = one_line(row.body, QUOTE_CHARS)
        text = (
            f"delivery failed: message {row.id} to {row.runtime}-{row.personality} "
            f"is {row.state}: {row.reason}. It began: {quote}"
        )
        self._post(sender, row.sender_uid, text, row.topic or TOPIC)

    def _post(self, to: Identity, uid: str, text: str, topic: str) -> None:
        task = asyncio.create_task(self._write(to, uid, text, topic), name="notice")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _write(self, to: Identity, uid: str, text: str, topic: str) -> None:
        now = self._clock.now()
        notice = NewMessage(
            id=new_message_id(),
            sender=CORE_ADDRESS,
            sender_uid="",
            to_uid=uid,
            personality=to.personality,
            runtime=to.runtime,
            body=text,
            accepted_ts=local_iso(now),
            expires_at=now + self._settings.ttl_s,
            path="core",
            intelligence=Intelligence.ABSENT,
            pinned=True,
            topic=topic,
        )
        try:
            await self._ledger.write(lambda c: messages.accept(c, notice, now))
        except StorageError as error:
            self._log("notice-lost", identity=to.address, reason=str(error))
            return
        self.deliver(uid, to)

    async def close(self) -> None:
        """Wait for the notices that are being written; each is one bounded ledger write."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._settings.busy_timeout_s)
