"""The suite itself: it passes what is right, catches what is not, and leaves nothing behind."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from iapeer.runtimes.catalog import SHIPPED
from iapeer.testing.conformance import CHECKS, Report, Subject, Suite, texts

pytestmark = pytest.mark.real_tmux

MODEL_ONLY = {"mid-tool", "compact"}


def examine(subject: Subject, *names: str, limit_s: float = 60.0) -> Report:
    checks = [check for check in CHECKS if check.name in {"boot", "first-message", *names}]
    return Suite(subject, say=print, limit_s=limit_s, checks=checks).run()


def broken(tmp_path: Path, *changes: tuple[str, str]) -> Subject:
    """The demo agent with a manifest that says something wrong of it."""
    text = (SHIPPED / "demo.toml").read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    folder = tmp_path / "runtimes"
    folder.mkdir()
    (folder / "faulty.toml").write_text(text.replace('"demo"', '"faulty"'), encoding="utf-8")
    return Subject("faulty", runtimes_dir=folder)


@pytest.mark.slow
def test_the_demo_agent_passes_every_check_that_needs_no_model() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "iapeer", "dev", "conformance", "demo", "--json"],
        capture_output=True,
        encoding="utf-8",
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["passed"] is True
    verdicts = {row["name"]: row["verdict"] for row in found["rows"]}
    assert {name for name, verdict in verdicts.items() if verdict == "n/a"} <= MODEL_ONLY
    assert list(verdicts) == [check.name for check in CHECKS]
    assert f"[ 1/{len(CHECKS)}]" in done.stderr


def test_a_composer_that_nobody_can_read_is_caught(tmp_path: Path) -> None:
    subject = broken(tmp_path, ('prompt_glyphs = ["❯"]', "prompt_glyphs = []"))
    (row,) = examine(subject, "draft").failures
    assert row.name == "draft"
    assert "prompt_glyphs" in row.hint
    assert "demo agent" in row.screen


def test_a_queue_that_is_lost_is_caught(tmp_path: Path) -> None:
    losing = '[launch.env]\nDEMO_MISBEHAVE = "lose_queue"'
    report = examine(broken(tmp_path, ("[launch.env]", losing)), "mid-turn", limit_s=30)
    (row,) = report.failures
    assert row.name == "mid-turn"
    assert re.fullmatch(r"not within \d+ s: the message is seen; it is landed", row.figure)


def test_a_runtime_without_evidence_is_told_to_have_none(tmp_path: Path) -> None:
    text = (SHIPPED / "demo.toml").read_text(encoding="utf-8")
    evidence = text[text.index("[evidence]") : text.index("[tested]")]
    subject = broken(tmp_path, (evidence, ""), ('DEMO_TRANSCRIPT = "{transcript}"\n', ""))
    report = examine(subject, "seen", "turn-end")
    verdicts = {row.name: row.verdict for row in report.rows}
    assert verdicts == {"boot": "pass", "first-message": "n/a", "seen": "n/a", "turn-end": "n/a"}
    assert report.version_line == "bundled (tested)"


def test_when_it_never_comes_up_nothing_else_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "BOOT_S", 2.0)
    subject = broken(tmp_path, ('"-m", "iapeer.apps.demo_agent"', '"-c", "raise SystemExit(3)"'))
    report = Suite(subject, say=print, limit_s=60.0).run()
    assert report.rows[0].figure.startswith("not within 2 s")
    assert {row.verdict for row in report.rows} == {"fail"}
    assert all("not run: it never came up" in row.figure for row in report.rows[1:])
