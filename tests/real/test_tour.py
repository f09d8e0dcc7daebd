"""`make demo RUNTIME=... SIM=1`: the whole tour with real agents and a scripted model."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from iapeer.core import env

TOUR_S = 100.0


@pytest.mark.requirement("launch:adapters")
@pytest.mark.parametrize("runtime", ["claude", "codex"])
def test_the_tour_shows_two_real_agents_and_leaves_nothing(
    runtime: str, agent_binaries: object, agent_environ: dict[str, str]
) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("IAPEER_")}
    found = subprocess.run(
        [sys.executable, "-m", "iapeer.testing.simulated_tour", runtime],
        capture_output=True,
        encoding="utf-8",
        timeout=TOUR_S,
        env={**environ, env.HOME: agent_environ["HOME"]},
        check=False,
    )
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr
    assert "alice: Bob's favourite prime number is 7919." in found.stdout
    assert "nothing left running" in found.stdout
