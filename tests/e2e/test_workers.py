"""The short form of `make test-workers`: the daemon dies, and every task is done once, in order."""

from __future__ import annotations

import os

import pytest

from iapeer.testing.workers import report
from iapeer.testing.workers.plan import WorkerOptions
from iapeer.testing.workers.runner import run

pytestmark = [pytest.mark.e2e, pytest.mark.real_tmux, pytest.mark.slow]

SEED = int(os.environ.get("IAPEER_CHAOS_SEED", "1"))


@pytest.mark.requirement("lifecycle:ephemeral", "lifecycle:ephemeral:once", "lifecycle:killed")
def test_every_task_of_a_worker_is_done_once_and_in_order_while_the_daemon_is_killed() -> None:
    options = WorkerOptions(tasks=12, kills=3, worker_kills=0, seed=SEED, seconds=90.0)
    result = run(options)
    assert report.passed(result), report.verdict(result)
    assert result.figures["daemon killed"] == options.kills
