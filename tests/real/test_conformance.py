"""The core of the gate: every capability of each real agent CLI, told by the conformance suite."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from iapeer.testing.conformance import Subject, Suite
from iapeer.testing.conformance.report import as_text

EXTRA = [pytest.param(name, marks=pytest.mark.extra) for name in ("opencode", "qwen")]
EXPECTED_N_A: Mapping[str, set[str]] = {}
"""What a runtime's manifest does not claim, by runtime."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["claude", "codex", *EXTRA])
def test_the_program_does_all_that_its_manifest_says(
    name: str, agent_binaries: Mapping[str, Path], agent_path: str
) -> None:
    assert agent_binaries[name].is_file()
    folder = Path(agent_path.partition(os.pathsep)[0])
    report = Suite(Subject(name, path=folder), say=print, limit_s=240).run()
    assert report.passed, f"\n{as_text(report)}"
    assert {row.name for row in report.rows if row.verdict == "n/a"} == EXPECTED_N_A.get(
        name, set()
    )
    assert report.has_model
    assert report.version in report.tested or os.environ.get(f"IAPEER_TEST_AGENT_{name.upper()}")
