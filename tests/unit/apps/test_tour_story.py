from __future__ import annotations

import asyncio
import gc
from typing import Any

from iapeer.apps.tour.house import TourFailed
from iapeer.apps.tour.story import end


def test_a_command_that_failed_when_nobody_waits_any_more_is_not_complained_about() -> None:
    complaints: list[dict[str, Any]] = []

    async def fails() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            # What `wait_for` of Python 3.11 does when the command ends as it is cancelled.
            raise TourFailed("`iapeer send` failed")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
        failed = asyncio.create_task(fails())
        endless = asyncio.create_task(asyncio.Event().wait())
        await asyncio.sleep(0)
        await end(failed, endless)
        assert endless.cancelled()

    asyncio.run(main())
    gc.collect()
    assert complaints == []
