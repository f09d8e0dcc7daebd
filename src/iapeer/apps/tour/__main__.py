"""Run the tour; see the package for what it promises."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence

from iapeer.core import env
from iapeer.core.errors import IapeerError, RuntimeUnknown

from .house import House, TourFailed, explain
from .plan import DEMO, Plan, make_plan
from .stage import Stage
from .story import Story, farewell

_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(
    argv: Sequence[str] | None = None, stage: Stage | None = None, plan: Plan | None = None
) -> int:
    """Run one tour, of `plan` if there is one, and return its exit status."""
    parser = argparse.ArgumentParser(prog="iapeer.apps.tour", description="Watch agents talk.")
    parser.add_argument("runtime", nargs="?", default=DEMO, help=f"default: {DEMO}")
    runtime = parser.parse_args(argv).runtime
    try:
        plan = plan or make_plan(runtime, os.environ)
    except IapeerError as error:
        print(f"iapeer demo: {error.message}", file=sys.stderr)
        return 2 if isinstance(error, RuntimeUnknown) else 1
    for secret in (env.BEARER_TOKEN, env.SESSION_TOKEN):
        os.environ.pop(secret, None)  # of another root: our daemon would refuse it
    return asyncio.run(_tour(stage or Stage(), plan))


async def _tour(stage: Stage, plan: Plan) -> int:
    """Play the story until it ends or a signal comes, and clear away in either case."""
    told: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    for number in _ENDS:
        asyncio.get_running_loop().add_signal_handler(number, _note, told, number)
    price = "no account, no network" if plan.is_scripted else f"on your own {plan.alice.runtime}"
    price = plan.login.words if plan.login else price
    stage.title(f"iapeer demo: two agents and you, {price}")
    try:
        house = await House.open(plan)
    except TourFailed as no_house:
        stage.bad(f"The demo failed: {no_house}")
        return 1
    story = asyncio.create_task(Story(house, stage, plan).play())
    await asyncio.wait((story, told), return_when=asyncio.FIRST_COMPLETED)
    story.cancel()
    # From here on signals are only noted: what follows is bounded, and is what they ask for.
    await asyncio.wait((story,))
    error = None if story.cancelled() else story.exception()
    if error is not None:
        stage.bad(f"The demo failed: {explain(error)}", house.log_tail())
    stage.step("Everything stops")
    if told.done():
        stage.note(f"({signal.Signals(told.result()).name}: clearing away)")
    is_clean = farewell(stage, await house.close())
    if told.done():
        return 128 + told.result()
    return 0 if is_clean and error is None else 1


def _note(told: asyncio.Future[int], number: int) -> None:
    if not told.done():
        told.set_result(number)


if __name__ == "__main__":
    sys.exit(main())
