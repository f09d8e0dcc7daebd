"""The demo agent in a real tmux, driven the way the paste door does it and read by its manifest."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from iapeer.runtimes.catalog import Catalog
from iapeer.runtimes.manifest import RuntimeSpec, expand
from tests.integration.apps.pty_agent import NASTY, WAIT_S, child_environment

pytestmark = pytest.mark.real_tmux


class Pane:
    """One tmux server of our own with one agent in it."""

    def __init__(self, folder: Path, command: list[str], environment: dict[str, str]) -> None:
        self._socket = folder / "s"
        self._environment = environment
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", "160", "-y", "50", *command)

    def tmux(self, *arguments: str, stdin: str = "") -> str:
        command = ["tmux", "-S", str(self._socket), *arguments]
        done = subprocess.run(
            command,
            env=self._environment,
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            check=True,
        )
        return done.stdout

    def screen(self) -> str:
        return self.tmux("capture-pane", "-p")

    def paste(self, text: str) -> None:
        self.tmux("load-buffer", "-b", "b", "-", stdin=text)
        self.tmux("paste-buffer", "-p", "-r", "-d", "-b", "b")

    def wait(self, holds: Callable[[], bool]) -> None:
        end = time.monotonic() + WAIT_S
        while not holds():
            assert time.monotonic() < end, self.screen()
            time.sleep(0.02)


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="iap", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def spec() -> RuntimeSpec:
    return Catalog.load(Path("/nonexistent")).get("demo")


@pytest.fixture
def pane(folder: Path, spec: RuntimeSpec) -> Iterator[Pane]:
    values = {
        "python": sys.executable,
        "transcript": str(folder / "t.jsonl"),
        "prompt_hook": "[]",
    }
    names = list(spec.launch.env)
    own = dict(zip(names, expand(spec.launch.env.values(), values), strict=True))
    made = Pane(folder, expand(spec.launch.argv, values), child_environment(**own))
    yield made
    made.tmux("kill-server")


def found(expressions: tuple[str, ...], screen: str) -> list[bool]:
    return [re.search(one, screen, re.MULTILINE) is not None for one in expressions]


def test_the_manifest_reads_the_real_screen(pane: Pane, spec: RuntimeSpec, folder: Path) -> None:
    pane.wait(lambda: all(found(spec.screen.ready, pane.screen())))
    assert not any(found((*spec.screen.not_ready, *spec.screen.busy), pane.screen()))
    text = "<iap>\n" + NASTY + "SLOW 500\n  demo agent · ready"
    pane.paste(text)
    pane.wait(lambda: spec.screen.paste_patterns[0] in pane.screen())
    row = next(line for line in pane.screen().split("\n") if line.startswith("\u276f"))
    assert row.startswith(f"{spec.screen.prompt_glyphs[0]}\u00a0[Pasted text #1 +")
    pane.tmux("send-keys", spec.submit.key)
    pane.wait(lambda: any(found(spec.screen.busy, pane.screen())))
    assert not all(found(spec.screen.ready, pane.screen()))
    pane.tmux("send-keys", spec.control.interrupt)
    pane.wait(lambda: all(found(spec.screen.ready, pane.screen())))
    lines = (folder / "t.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    kinds = [
        next((one.kind for one in spec.evidence.records if one.matches(record)), None)
        for record in records
    ]
    assert kinds == ["user", "turn_start", "turn_end"]
    assert records[0]["text"] == text
    assert records[2]["status"] == "interrupted"


def test_a_message_that_quotes_the_footer_is_not_taken_for_it(
    pane: Pane, spec: RuntimeSpec
) -> None:
    pane.wait(lambda: all(found(spec.screen.ready, pane.screen())))
    pane.paste("SAY\n  demo agent · working · esc to interrupt\n\u276f draft\n\n")
    pane.tmux("send-keys", "Enter")
    pane.wait(lambda: "esc to interrupt" in pane.screen() and "\u25cf" in pane.screen())
    pane.wait(lambda: not any(found(spec.screen.busy, pane.screen())))
    glyphs = [line for line in pane.screen().split("\n") if line.startswith("\u276f")]
    assert glyphs == ["\u276f\u00a0"]


def test_the_cursor_stands_behind_the_draft(pane: Pane, spec: RuntimeSpec) -> None:
    pane.wait(lambda: all(found(spec.screen.ready, pane.screen())))
    pane.tmux("send-keys", "-l", "日本語 й")
    pane.wait(lambda: "日本語 й" in pane.screen())
    pane.wait(lambda: pane.tmux("display", "-p", "#{cursor_x}").strip() == "10")
    pane.tmux("send-keys", spec.submit.empty_key)
    pane.wait(lambda: "日本語" not in pane.screen())
