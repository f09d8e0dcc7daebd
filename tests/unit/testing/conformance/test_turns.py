"""How long the checks of turns wait, and for what."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from iapeer.runtimes.catalog import SHIPPED
from iapeer.runtimes.manifest import load_manifest
from iapeer.testing.conformance import stage as stages
from iapeer.testing.conformance import turns
from iapeer.testing.conformance.given import ModelGiven
from iapeer.testing.conformance.outcome import CheckFailed
from iapeer.testing.conformance.stage import STEP_S, TOOL_S, Stage

SHELL = {"name": "run", "input_schema": {"properties": {"command": {"type": "string"}}}}


class Frozen(Stage):
    """Its program answers nothing until `awake_at`; the clock goes on as it is waited for."""

    now = 0.0
    awake_at = 0.0

    def send(self, peer: str, body: str, *, topic: str = "") -> str:
        return "running" if "tool\nCALL" in body else "second"

    def trace(self, message_id: str) -> dict[str, Any]:
        awake = self.now >= self.awake_at
        state = "seen" if awake or message_id == "running" else "landed"
        return {
            "state": state,
            "reason": "",
            "turns": [{"end": "done" if awake else ""}] if state == "seen" else [],
        }

    def texts(self, message_id: str) -> list[str]:
        return ["once"]

    def main_request(self) -> Any:
        return SimpleNamespace(body=json.dumps({"tools": [SHELL]}).encode())


@pytest.fixture
def frozen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Frozen:
    model = SimpleNamespace(requests=[SimpleNamespace(tool_results=["tool-is-done"])])
    spec = load_manifest(SHIPPED / "qwen.toml")
    made = Frozen(
        cast("Any", None), spec, tmp_path, cast("Any", model), cast("Any", None), deadline=1e6
    )
    made.__dict__["given"] = ModelGiven(cast("Any", model))

    def sleep(seconds: float) -> None:
        made.now += seconds

    clock = SimpleNamespace(monotonic=lambda: made.now, sleep=sleep)
    monkeypatch.setattr(stages, "time", clock)
    return made


def test_the_first_command_of_a_session_may_take_longer_than_any_other_answer(
    frozen: Frozen,
) -> None:
    frozen.awake_at = STEP_S + 10
    assert turns.mid_tool(frozen).startswith("queued by the program")


def test_a_command_that_never_ends_is_told(frozen: Frozen) -> None:
    frozen.awake_at = 2 * TOOL_S
    with pytest.raises(CheckFailed, match=f"not within {TOOL_S:.0f} s"):
        turns.mid_tool(frozen)
