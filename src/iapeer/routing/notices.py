"""What the core itself has to say: a sender learns when its message can't be delivered or waits.

Notices come from `core-iapeer`, are never sent about a notice and wake nobody. What happens to
several messages of one sender to one recipient for one reason becomes one notice. A failure is
told in the same transaction that marks it as told, so a kill between the two loses nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING

import msgspec

from iapeer.core.errors import StorageError
from iapeer.core.identity import CORE_ADDRESS, Identity, Intelligence, parse_identity
from iapeer.core.ids import new_message_id
from iapeer.core.text import one_line
from iapeer.registry.profiles import is_ephemeral
from iapeer.storage.ledger import messages, queries
from iapeer.storage.ledger.rows import MessageRow, NewMessage

from .clocktime import local_iso

if TYPE_CHECKING:
    from sqlite3 import Connection

    from iapeer.core.clock import Clock
    from iapeer.core.settings import Settings
    from iapeer.registry.index import Registry
    from iapeer.storage.ledger.store import Ledger

    from .lanes.services import LifecycleLog

QUOTE_CHARS = 80
LISTED_IDS = 20
GATHER_S = 0.2
"""What fails within this time of the first is told together with it."""
FAILED_TOPIC = "delivery-failed"
WAITING_TOPIC = "delivery-waiting"

_Key = tuple[str, str, str]
"""(sender's address, recipient's address, reason)"""


class NoticeServices(msgspec.Struct, frozen=True):
    """What notices are made with; `deliver` pokes the lane of whoever gets one."""

    ledger: Ledger
    registry: Registry
    clock: Clock
    settings: Settings
    log: LifecycleLog


class Notices:
    """Writes notices as ordinary messages: durable, ordered, traceable."""

    def __init__(self, services: NoticeServices) -> None:
        self._s = services
        self._gathered: dict[_Key, list[MessageRow]] = {}
        self._tasks: dict[_Key, asyncio.Task[None]] = {}
        self._closing = asyncio.Event()
        self.deliver: Callable[[str, Identity], None] = lambda _uid, _identity: None

    async def resume(self) -> None:
        """Tell what a killed daemon had no time to tell. Raises StorageError."""
        for row in await self._s.ledger.read(queries.untold):
            self.failed(row)

    def failed(self, row: MessageRow) -> None:
        """Tell the sender of a message that became final without being delivered."""
        self._gather((row.sender, _address(row), row.reason), row)

    def waiting(self, rows: Sequence[MessageRow], why: str) -> None:
        """Tell senders once that their messages wait, and will arrive by themselves."""
        for row in rows:
            self._gather((row.sender, _address(row), why), row)

    def carry_on(self, uid: str, identity: Identity, ids: Sequence[str], why: str) -> None:
        """Tell a reader whose turn was cut short which messages it had read."""
        text = (
            f"Your last turn ended early ({why}). You had read {_listed(ids)}; "
            "nothing is sent again: carry on with what is left of it."
        )
        key = (CORE_ADDRESS, identity.address, ids[0] if ids else "")
        self._spawn(key, self._write_all([self._notice(identity, uid, text, "carry-on")], ()))

    async def close(self) -> None:
        """Write what is gathered, now; bounded."""
        self._closing.set()
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=self._s.settings.busy_timeout_s)

    def _gather(self, key: _Key, row: MessageRow) -> None:
        if row.sender == CORE_ADDRESS:
            return
        self._gathered.setdefault(key, []).append(row)
        if key not in self._tasks:
            self._spawn(key, self._tell(key))

    def _spawn(self, key: _Key, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work, name="notice")
        self._tasks[key] = task
        task.add_done_callback(lambda _: self._tasks.pop(key, None))

    async def _tell(self, key: _Key) -> None:
        """Tell at once what comes together, then at most once per coalescing time."""
        await self._pause(GATHER_S)
        while rows := self._gathered.pop(key, None):
            await self._tell_rows(key, rows)
            await self._pause(self._s.settings.notice_coalesce_s)

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._closing.wait(), seconds)
        except TimeoutError:
            return

    async def _tell_rows(self, key: _Key, rows: Sequence[MessageRow]) -> None:
        address, recipient, reason = key
        final = [row.id for row in rows if row.state in ("failed", "expired")]
        sender = parse_identity(address)
        record = sender and self._s.registry.snapshot(allow_stale=True).get(sender.personality)
        if sender is None or not record or record.uid != rows[0].sender_uid:
            self._s.log("notice-undeliverable", identity=address, reason=reason)
            await self._write_all((), final)
            return
        if is_ephemeral(record.cwd):
            # To a worker it would be a task of its own: it is the operator's to see.
            ids = " ".join(row.id for row in rows)
            self._s.log("notice-ephemeral", identity=address, to=recipient, id=ids, reason=reason)
            await self._write_all((), final)
            return
        quote = one_line(rows[0].body, QUOTE_CHARS)
        which = _listed([row.id for row in rows])
        if final:
            text = f"delivery failed: {which} to {recipient}: {reason}. It began: {quote}"
            topic = rows[0].topic or FAILED_TOPIC
        else:
            text = f"still waiting: {which} to {recipient}: {reason}. It began: {quote}"
            topic = WAITING_TOPIC
        await self._write_all([self._notice(sender, record.uid, text, topic)], final)

    def _notice(self, to: Identity, uid: str, text: str, topic: str) -> NewMessage:
        now = self._s.clock.now()
        return NewMessage(
            id=new_message_id(),
            sender=CORE_ADDRESS,
            sender_uid="",
            to_uid=uid,
            personality=to.personality,
            runtime=to.runtime,
            body=text,
            accepted_ts=local_iso(now),
            expires_at=now + self._s.settings.ttl_s,
            path="core",
            intelligence=Intelligence.ABSENT,
            pinned=True,
            topic=topic,
        )

    async def _write_all(self, notices: Sequence[NewMessage], told: Sequence[str]) -> None:
        now = self._s.clock.now()

        def write(conn: Connection) -> None:
            for notice in notices:
                messages.accept(conn, notice, now)
            messages.mark_told(conn, told)

        try:
            await self._s.ledger.write(write)
        except StorageError as error:
            # Failures stay untold in the ledger and are told after the next start.
            self._s.log("notice-lost", reason=str(error))
            return
        for notice in notices:
            self.deliver(notice.to_uid, Identity(notice.runtime, notice.personality))


def _address(row: MessageRow) -> str:
    return f"{row.runtime}-{row.personality}"


def _listed(ids: Sequence[str]) -> str:
    if len(ids) == 1:
        return f"message {ids[0]}"
    shown = ", ".join(ids[:LISTED_IDS])
    more = f" and {len(ids) - LISTED_IDS} more" if len(ids) > LISTED_IDS else ""
    return f"{len(ids)} messages ({shown}{more})"
