"""What readers got: receipts of the inboxes while it happens, the agents' records afterwards."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing
from datetime import datetime
from pathlib import Path

from iapeer.client.peer import Incoming, Peer
from iapeer.core.errors import IapeerError
from iapeer.storage.paths import peer_state_dir

from .bodies import any_number_in, number_in, read_prompt
from .fleet import Fleet
from .history import History, Showing

RETRY_S = 0.1


class Inboxes:
    """All inbox peers, read in one thread; a receipt is written before anything else is done."""

    def __init__(self, fleet: Fleet, history: History) -> None:
        self._fleet = fleet
        self._history = history
        self._stop = asyncio.Event()
        self._drop: set[str] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="inboxes", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def drop(self, personality: str) -> None:
        """Let a reader go away with its next message unacknowledged, and come back."""
        self._drop.add(personality)

    def stop(self) -> None:
        """End all readers; bounded."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10.0)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        tasks = [asyncio.create_task(self._read(name)) for name in self._fleet.inboxes]
        await self._stop.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, personality: str) -> None:
        while True:
            address = self._fleet.address(personality)
            peer = Peer(address, socket=self._fleet.daemon.socket, token="")
            try:
                async with aclosing(peer.inbox()) as inbox:
                    async for message in inbox:
                        self._history.add(_receipt(address, message))
                        if personality in self._drop:
                            self._drop.discard(personality)
                            break
            except IapeerError:
                await asyncio.sleep(RETRY_S)


def _receipt(address: str, message: Incoming) -> Showing:
    number = number_in(message.body)
    return Showing(
        reader=address,
        number=number or any_number_in(message.body),
        message_id=message.id,
        dup=message.dup == "maybe",
        at=time.time(),
        session="",
        intact=number > 0,
    )


def agent_showings(fleet: Fleet) -> Iterator[Showing]:
    """Yield what every agent wrote down as user input; notices of the core only when damaged."""
    for name in fleet.agents:
        folder = peer_state_dir(fleet.paths.peer_home(name), "demo")
        for path in sorted(folder.glob("*.jsonl")):
            yield from _showings_of(fleet.address(name), path)


def _showings_of(reader: str, path: Path) -> Iterator[Showing]:
    # The last line may be half written: the program was killed.
    for line in path.read_bytes().split(b"\n")[:-1]:
        record = json.loads(line)
        if record.get("type") != "user":
            continue
        message_id, sender, dup, number, intact = read_prompt(record["text"])
        if intact and not number:
            continue  # a notice of the core
        del sender
        yield Showing(
            reader=reader,
            number=number,
            message_id=message_id,
            dup=dup,
            at=datetime.fromisoformat(record["ts"]).timestamp(),
            session=path.stem,
            intact=intact,
        )
