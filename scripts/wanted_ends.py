"""End many sessions on purpose on a busy machine, and look whether any end was taken for a death.

    python scripts/wanted_ends.py [how many, default 200]

Each one has a tmux server with its hook and a recorder of its own, eight at a time, while every
processor is kept busy. Exit status 0: no record was written.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from iapeer.sessions.forensics.coroner import Scene
from tests.integration.sessions.canary_rig import GRACE_S, open_rig, recorders

AT_ONCE = 8


async def main(many: int) -> int:
    """Return how many false records there were."""
    began, deaths = time.monotonic(), list[Scene | None]()
    async with open_rig() as rig:

        async def once(number: int) -> None:
            body = await rig.begin(identity=f"demo-p{number}")
            deaths.append(await rig.end(body))

        for start in range(0, many, AT_ONCE):
            await asyncio.gather(*(once(n) for n in range(start, min(start + AT_ONCE, many))))
        await asyncio.sleep(GRACE_S + 1)
        records, left = rig.lines(), recorders(rig.base)
        reports = rig.reports()
    took = time.monotonic() - began
    sys.stdout.write(
        f"{many} wanted ends in {took:.0f} s: {len(records)} records, {len(reports)} reports,"
        f" {len(left)} recorders left\n"
    )
    return len(records) + len(reports) + len(left) + sum(x is not None for x in deaths)


def busy() -> list[subprocess.Popen[bytes]]:
    """Keep every processor at work."""
    return [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(os.cpu_count() or 1)
    ]


if __name__ == "__main__":
    load = busy()
    try:
        code = asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200))
    finally:
        for process in load:
            process.kill()
            process.wait()
    sys.exit(1 if code else 0)
