"""Which of a peer's runtimes a message goes to, and what its reader is shown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial

import msgspec
import pytest

from iapeer.core.envelope import decode
from iapeer.core.errors import InvalidInput, SendRefused
from tests.integration.routing.house import House, open_house, until

pytestmark = [pytest.mark.anyio, pytest.mark.real_tmux]

PROGRAM = 'id = "{id}"\nkind = "service"\ndoors = ["inbox"]\n'


def _is_live(house: House, runtime: str) -> bool:
    return house.lane("svc", runtime).phase == "live"


@asynccontextmanager
async def _svc(*connected: str) -> AsyncIterator[House]:
    """Open a house with svc, a program with the runtimes api, hook and cron; some connected."""
    async with open_house() as house:
        await house.close()
        for runtime in ("hook", "cron"):
            house.runtime(runtime, PROGRAM.format(id=runtime))
        house.create("svc", runtime="api")
        await house.start()
        house.services.registry.change(
            lambda records: records.update(
                svc=msgspec.structs.replace(records["svc"], runtimes=("api", "hook", "cron"))
            )
        )
        readers = []
        for runtime in connected:
            stream = house.inboxes.open(house.caller(f"{runtime}-svc"))
            readers.append(asyncio.ensure_future(anext(aiter(stream))))
            await until(partial(_is_live, house, runtime))
        yield house
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


@pytest.mark.requirement("send:target:choice")
@pytest.mark.parametrize(
    ("connected", "named", "taken"),
    [
        ((), None, "api"),
        (("api", "hook"), None, "api"),
        (("hook",), None, "hook"),
        (("hook",), "cron", "cron"),
        (("api", "hook"), "hook", "hook"),
    ],
)
async def test_the_named_runtime_comes_first_then_the_default_then_the_live_one(
    connected: tuple[str, ...], named: str | None, taken: str
) -> None:
    async with _svc(*connected) as house:
        assert (await house.send("svc", runtime=named)).runtime == taken


@pytest.mark.requirement("send:target:ambiguous")
async def test_several_live_runtimes_without_the_default_must_be_chosen_from() -> None:
    async with _svc("hook", "cron") as house:
        with pytest.raises(SendRefused, match=r"online in multiple runtimes \(hook, cron\)"):
            await house.send("svc")
        assert await house.count() == 0
        assert (await house.send("svc", runtime="cron")).runtime == "cron"


@pytest.mark.requirement("send:refuse:self")
async def test_another_runtime_of_the_same_peer_is_somebody_else() -> None:
    async with _svc() as house:
        assert (await house.send("svc", sender="hook-svc", runtime="cron")).runtime == "cron"
        assert (await house.send("svc", sender="hook-svc")).runtime == "api"
        with pytest.raises(InvalidInput, match="hook-svc cannot send to self"):
            await house.send("svc", sender="hook-svc", runtime="hook")


@pytest.mark.requirement("envelope:wire:ts", "envelope:compact:where")
async def test_a_model_reads_the_short_form_with_the_time_its_sender_was_told() -> None:
    async with open_house("ann") as house:
        sent = await house.send("ann", topic="the build")
        await house.wait(sent.message_id, "seen")
        (prompt,) = house.prompts("ann")
    accepted = datetime.fromisoformat(sent.ts)
    assert abs(datetime.now().astimezone() - accepted) < timedelta(minutes=1)
    assert accepted.utcoffset() == datetime.now().astimezone().utcoffset()
    assert prompt.startswith('<iap from="op" runtime="api"')
    seen = decode(prompt)
    assert (seen.from_personality, seen.from_runtime, seen.topic) == ("op", "api", "the build")
    assert seen.ts is not None
    assert seen.ts.endswith(f"{accepted:%H:%M:%S}")
    assert (seen.id, seen.body) == (sent.message_id, "NOTHING")
