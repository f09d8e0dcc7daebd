"""A daemon in this process with a lane for each peer; times its audits: `audit_inside PEERS TIMES`.

Prints JSON: seconds of dict walks, seconds of audits, names of what started a process meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

from iapeer.core.identity import Identity
from iapeer.core.settings import Settings, make_settings
from iapeer.host.common import open_registry
from iapeer.host.run import running_daemon
from iapeer.storage.paths import Paths

_STARTS = frozenset({"subprocess.Popen", "os.posix_spawn", "os.fork", "os.exec", "os.system"})
_AT_ONCE = 500
"""Lanes made before the next ones; 10,000 at once would fill the queue of the ledger's reader."""
_WARM = 5


async def measure(settings: Settings, times: int) -> tuple[list[float], list[float], list[str]]:
    """Return both samples and what was started during the audits."""
    started: list[str] = []
    watching = False

    def watch(event: str, _arguments: object) -> None:
        if watching and event in _STARTS:
            started.append(event)

    sys.addaudithook(watch)
    walks, audits = [], []
    async with running_daemon(settings, os.environ) as daemon:
        records = open_registry(Paths(settings.root), os.environ).snapshot().by_name
        for number, record in enumerate(records.values(), start=1):
            daemon.lanes.lane(record.uid, Identity(record.default_runtime, record.personality))
            if number % _AT_ONCE == 0:
                # It reads the ledger after the new lanes: none of them is refused for its queue.
                await daemon.lanes.audit()
        for _ in range(_WARM):
            await daemon.lanes.audit()
        watching = True
        for _ in range(times):
            began = time.perf_counter()
            for record in records.values():
                if not record.uid:
                    raise RuntimeError(record.personality)
            walked = time.perf_counter()
            await daemon.lanes.audit()
            # The lanes' own turn belongs to it.
            await asyncio.sleep(0)
            walks.append(walked - began)
            audits.append(time.perf_counter() - walked)
        watching = False
    return walks, audits, started


if __name__ == "__main__":
    result = asyncio.run(measure(make_settings(os.environ), int(sys.argv[2])))
    sys.stdout.write(json.dumps(result))
