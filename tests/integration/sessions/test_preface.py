"""The initial prompt: once, before the first message of a fresh session, and never a command."""

from __future__ import annotations

import json
import os

import pytest

from iapeer.storage.paths import profile_path
from tests.integration.routing.house import House, open_house, until

pytestmark = [pytest.mark.anyio, pytest.mark.real_tmux]

SEED = "You are the release manager.\nBe brief."


def _with(prompt: str) -> object:
    def change(house: House) -> None:
        path = profile_path(house.paths.peer_home("ann"))
        profile = json.loads(path.read_text("utf-8"))
        path.write_text(json.dumps({**profile, "initial_prompt": prompt}), "utf-8")

    return change


@pytest.mark.requirement("launch:initial-prompt")
async def test_it_stands_before_the_first_message_only() -> None:
    async with open_house("ann", before=_with(SEED)) as house:  # type: ignore[arg-type]
        for text in ("NOTHING\none", "NOTHING\ntwo"):
            sent = await house.send("ann", text)
            await house.wait(sent.message_id, "seen")
        first, second = house.prompts("ann")
        assert first.startswith(f"{SEED}\n\n<iap ")
        assert second.startswith("<iap ")


@pytest.mark.requirement("launch:initial-prompt")
@pytest.mark.parametrize("prompt", ["!id", "/exit", "  !id"])
async def test_one_that_real_programs_would_run_is_left_out_and_told(prompt: str) -> None:
    async with open_house("ann", before=_with(prompt)) as house:  # type: ignore[arg-type]
        await house.live("ann")
        assert house.prompts("ann")[0].startswith("<iap ")
        log = house.paths.lifecycle_log.read_text("utf-8")
        assert "ev=initial-prompt-refused" in log


async def test_a_daemon_that_was_restarted_before_the_first_message_remembers_it() -> None:
    async with open_house("ann", before=_with(SEED)) as house:  # type: ignore[arg-type]
        await house.fleet.wake("ann", None)
        before = house.prompts("ann")
        await house.close()
        await house.start()
        sent = await house.send("ann", "NOTHING")
        await house.wait(sent.message_id, "seen")
        assert "".join(house.prompts("ann")).count(SEED) == 1
        assert len(before) <= 1


@pytest.mark.requirement("launch:needs-person")
async def test_a_screen_that_needs_a_person_fails_the_boot_at_once_with_what_to_do() -> None:
    def login(house: House) -> None:
        house.runtime(
            "demo",
            'id = "demo"\n[launch]\nargv = ["sh", "-c", "echo Please sign in; sleep 600"]\n'
            '[screen]\nready = ["never"]\n[[screen.failures]]\nmatch = "sign in"\n'
            'hint = "run: mytool login"\n',
        )

    async with open_house("ann", before=login) as house:
        await house.send("ann")
        log = house.paths.lifecycle_log
        await until(lambda: "only a person can go on" in log.read_text("utf-8"), timeout_s=10)
        assert "Please sign in" in log.read_text("utf-8")
        assert os.listdir(house.settings.sock_dir) == [] or await until(
            lambda: not house.leftovers()
        )
