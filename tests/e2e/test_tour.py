from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from iapeer.apps.tour.letters import Step, Trace, read_letters, rows
from iapeer.apps.tour.stage import cropped
from iapeer.apps.tour.story import Look, changes

REPOSITORY = Path(__file__).parents[2]
RUN_S = 60.0
GONE_S = 25.0
BASE = re.compile(r"/tmp/iap-\w+")
MESSAGE = re.compile(r"^   ([a-z2-7]{12})   (\w+ → \w+)", re.MULTILINE)

pytestmark = [pytest.mark.e2e, pytest.mark.real_tmux, pytest.mark.slow]


class Run:
    """A tour as its own process; what it prints is read line by line."""

    def __init__(self, home: Path, *words: str, **variables: str) -> None:
        environ = {name: value for name, value in os.environ.items() if not _is_ours(name)}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "iapeer.apps.tour", *words],
            env={**environ, "HOME": str(home), "LC_ALL": "C.UTF-8", **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            start_new_session=True,
        )
        self.text = ""

    @property
    def base(self) -> Path:
        found = BASE.search(self.text)
        assert found, self.text
        return Path(found[0])

    def until(self, words: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.text += line
            if words in line:
                return
        pytest.fail(f"{words!r} never came:\n{self.text}")

    def end(self) -> int:
        rest, _ = self.process.communicate(timeout=RUN_S)
        self.text += rest
        return self.process.returncode


def _is_ours(name: str) -> bool:
    return name.startswith(("IAPEER_", "PEER_", "TMUX", "COLUMNS", "FORCE_COLOR", "NO_COLOR"))


def _running(base: Path) -> list[str]:
    """Return all processes that mention the folder: looser than the tour's own search."""
    found = []
    for process in psutil.process_iter():
        try:
            place = [*process.cmdline(), *process.environ().values(), process.cwd()]
            if any(str(base) in text for text in place):
                found.append(f"{process.pid} {process.cmdline()}")
        except psutil.Error:
            continue
    return found


def _is_keeper(process: psutil.Process) -> bool:
    try:
        return "iapeer.apps.tour.keeper" in process.cmdline()
    except psutil.Error:
        return False  # a command of the tour that has just ended


def _assert_gone(base: Path) -> None:
    assert _running(base) == []
    assert not base.exists()


def _wait_gone(base: Path) -> None:
    until = time.monotonic() + GONE_S
    while (base.exists() or _running(base)) and time.monotonic() < until:
        time.sleep(0.1)
    _assert_gone(base)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    assert os.listdir(tmp_path) == [], "the tour wrote into the user's HOME"


def test_a_tour_shows_the_whole_way_and_leaves_nothing(home: Path) -> None:
    begun = time.monotonic()
    run = Run(home)

    assert run.end() == 0, run.text

    assert time.monotonic() - begun < 60
    assert "alice is awake" in run.text
    assert "● send_to_peer → bob: REPLY The build is green." in run.text
    assert "alice: bob says: The build is green." in run.text
    ways = [way for _id, way in MESSAGE.findall(run.text)]
    assert ways == ["you → alice", "alice → bob", "bob → alice", "alice → you"]
    assert run.text.count("proof: ") == 4
    assert "● demo" in run.text
    assert "nothing left running" in run.text
    assert "\x1b" not in run.text
    assert max(map(len, run.text.splitlines())) <= 100
    _assert_gone(run.base)


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("iapeer daemon", signal.SIGINT),
        ("iapeer create bob", signal.SIGTERM),
        ("iapeer send", signal.SIGINT),
        ("Everything stops", signal.SIGINT),
    ],
)
def test_a_signal_at_any_moment_clears_everything_away(
    home: Path, moment: str, number: signal.Signals
) -> None:
    run = Run(home)
    run.until(moment)

    os.killpg(run.process.pid, number)  # as a terminal does

    assert run.end() == 128 + number, run.text
    assert "nothing left running" in run.text
    assert "Traceback" not in run.text
    _assert_gone(run.base)


def test_a_second_ctrl_c_does_not_cut_the_clearing_away_short(home: Path) -> None:
    run = Run(home)
    run.until("alice is awake")

    os.killpg(run.process.pid, signal.SIGINT)
    run.until("Everything stops")
    os.killpg(run.process.pid, signal.SIGINT)

    assert run.end() == 130, run.text
    _assert_gone(run.base)


@pytest.mark.parametrize("moment", ["iapeer daemon", "alice is awake"])
def test_a_killed_tour_leaves_nothing_running(home: Path, moment: str) -> None:
    run = Run(home)
    run.until(moment)

    run.process.kill()

    assert run.end() == -signal.SIGKILL
    _wait_gone(run.base)


def test_a_tour_whose_keeper_was_killed_clears_away_by_itself(home: Path) -> None:
    run = Run(home)
    run.until("alice is awake")
    (keeper,) = filter(_is_keeper, psutil.Process(run.process.pid).children())

    keeper.kill()

    assert run.end() == 0, run.text
    _assert_gone(run.base)


def test_a_daemon_that_dies_is_told_with_its_last_lines(home: Path) -> None:
    run = Run(home)
    run.until("alice is awake")
    found = re.search(r"One process \(pid (\d+)\)", run.text)
    assert found

    os.kill(int(found[1]), signal.SIGKILL)

    assert run.end() == 1, run.text
    assert "The demo failed: no daemon answers" in run.text
    assert "[iapeer] daemon READY" in run.text
    _assert_gone(run.base)


def test_a_daemon_that_can_not_start_is_told_with_its_reason(home: Path) -> None:
    run = Run(home, IAPEER_TMUX="/nonexistent/tmux")

    assert run.end() == 1
    assert "The demo failed: the daemon ended with status 1" in run.text
    assert "tmux not found: /nonexistent/tmux" in run.text
    _assert_gone(run.base)


def test_settings_of_the_users_own_root_do_not_reach_the_tour(home: Path) -> None:
    run = Run(
        home,
        IAPEER_BEARER_TOKEN="other",
        IAPEER_PORT="99999",
        IAPEER_DAEMON_SOCKET="/nonexistent/router.sock",
        PEER_TOKEN="other",
        PEER_IDENTITY="demo-carol",
    )

    assert run.end() == 0, run.text
    _assert_gone(run.base)


def test_a_reader_that_goes_away_does_not_stop_the_tour(home: Path) -> None:
    run = Run(home)
    run.until("iapeer daemon")
    assert run.process.stdout is not None

    run.process.stdout.close()

    assert run.process.wait(timeout=RUN_S) == 0
    _assert_gone(run.base)


def test_a_terminal_gets_colours_and_moving_screens(home: Path) -> None:
    ours, theirs = pty.openpty()
    environ = {name: value for name, value in os.environ.items() if not _is_ours(name)}
    environ |= {"HOME": str(home), "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "iapeer.apps.tour"],
        env=environ,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # EIO: the last one has closed the terminal
        while data := os.read(ours, 65536):
            shown += data
    os.close(ours)
    text = shown.decode("utf-8")

    assert process.wait(timeout=RUN_S) == 0, text
    assert "\x1b[1A\x1b[2K" in text, "nothing was drawn in place"
    assert "\x1b[32m" in text, "no colours"
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "the cursor stays hidden"
    found = BASE.search(text)
    assert found
    _assert_gone(Path(found[0]))


@pytest.mark.parametrize("runtime", ["nosuch", "api"])
def test_an_unknown_runtime_is_one_line_and_status_2(home: Path, runtime: str) -> None:
    run = Run(home, runtime)

    assert run.end() == 2
    assert run.text.startswith(f"iapeer demo: no agent runtime '{runtime}' here; there is: ")
    assert "demo" in run.text
    assert len(run.text.splitlines()) == 1


def test_a_runtime_of_the_users_own_can_be_shown(tmp_path: Path) -> None:
    shipped = REPOSITORY / "src" / "iapeer" / "runtimes" / "manifests" / "demo.toml"
    own = tmp_path / "runtimes" / "mine.toml"
    own.parent.mkdir()
    own.write_text(
        shipped.read_text(encoding="utf-8").replace('id = "demo"', 'id = "mine"'), encoding="utf-8"
    )
    run = Run(tmp_path, "mine", IAPEER_RUNTIMES_DIR=str(own.parent))

    assert run.end() == 0, run.text
    # It is asked in plain words, and the demo agent answers those with a receipt.
    assert "alice: got it: Please ask bob" in run.text
    assert "● mine" in run.text
    _assert_gone(run.base)


def test_the_example_runs_with_plain_commands(home: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not _is_ours(name)}
    path = f"{Path(sys.executable).parent}:{environ['PATH']}"
    done = subprocess.run(
        ["sh", str(REPOSITORY / "examples" / "two-peers" / "run.sh")],
        env={**environ, "HOME": str(home), "PATH": path, "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=RUN_S,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "alice answers: bob says: The build is green." in done.stdout
    assert "now seen" in done.stdout
    found = BASE.search(done.stdout)
    assert found
    _assert_gone(Path(found[0]))


def test_the_delivery_log_is_read_with_quoted_values_and_foreign_events() -> None:
    letters = read_letters(
        [
            'ev=delivery caller=demo-a to=b topic="re: \\"y\\" id=no" id=abc state=seen ms=7',
            "ts=2 ev=refused caller=demo-a",
            "ts=3 ev=delivery caller=api-you to=a woke=true ms=12 id=def state=landed",
        ]
    )

    assert [(one.id, one.caller, one.ms, one.woke) for one in letters] == [
        ("abc", "demo-a", 7, False),
        ("def", "api-you", 12, True),
    ]


def test_the_table_counts_from_the_first_message_and_keeps_the_door() -> None:
    first = Trace(
        id="m1",
        sender="api-you",
        recipient="demo-a",
        state="seen",
        steps=(
            Step(at=10.0, state="accepted"),
            Step(at=10.01, state="held", reason="waking"),
            Step(at=10.5, state="in_flight", door="paste"),
            Step(at=10.75, state="seen", evidence="transcript@1"),
        ),
    )

    assert [(row.id, row.ms, row.how) for row in rows([first])] == [
        ("m1", "0", "safe on disk"),
        ("", "10", "its session is starting"),
        ("", "500", "through the paste door"),
        ("", "750", "proof: transcript@1"),
    ]


def test_each_change_is_told_once() -> None:
    asleep = Look({"alice": "asleep"}, (), ())
    awake = Look({"alice": "live"}, (), ())

    assert changes(asleep, awake) == ["alice is awake"]
    assert changes(awake, awake) == []


def test_a_screen_is_cut_to_its_last_telling_lines() -> None:
    assert cropped(["one", "", "──────", "two  ", "❯\u00a0", "   "], 2) == ("two", "❯")
