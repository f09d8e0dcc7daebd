"""How long a message takes to a real agent's model, beyond what the agent itself takes.

Run as `make bench-agents` (ARGS="3 10": cold and warm runs); prints a table and exits 1 when a
median is over its limit. Nothing is timed alone: each figure is the difference to the same program,
started and fed by hand a moment later, without our hooks and our daemon's bookkeeping. Cold: the
peer sleeps; warm: it waits for input.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgspec

from iapeer.runtimes.catalog import SHIPPED
from iapeer.runtimes.manifest import load_manifest
from iapeer.sessions.appserver.frames import LoadedPage
from iapeer.sessions.appserver.wire import Wire, WireError, connect
from iapeer.sessions.model import marks_of
from iapeer.sessions.screen import Screen, read_screen
from iapeer.sessions.tmux.config import config_text
from iapeer.storage.ledger import sessions as rows
from iapeer.storage.ledger.offline import offline_read
from iapeer.storage.ledger.rows import SessionRow
from iapeer.storage.paths import Paths
from iapeer.testing.agents import AgentDaemon, SimulatedModel, load_pins, locate
from iapeer.testing.agents.install import CACHE
from iapeer.testing.daemon import wait_until
from iapeer.testing.leaks import processes_of, wait_for_none

COLD, WARM = 5, 15
LIMITS_S = {"cold": 0.5, "warm": 0.1}
POLL_S = 0.005
RE_ENTER_S = 0.5
PAUSE_S = 0.5
"""Before each: the one before has ended its turn by then, on either side."""
BODY = "A question of two thousand characters. " * 50
AGENTS = ("claude", "codex")
FILLED = ("text", "paste_chip")


@dataclass(frozen=True)
class Program:
    """One running session's command lines and environment, to be started again by hand."""

    agent: str
    argv: tuple[str, ...]
    server_argv: tuple[str, ...]
    environ: dict[str, str]
    cwd: str


class Stopwatch:
    """Times how long something takes until the model is asked."""

    def __init__(self, model: SimulatedModel) -> None:
        self._model = model
        self._pool = ThreadPoolExecutor(1)

    def run(self, do: Callable[[str], object]) -> float:
        """Call `do` with a text that nobody said before; return seconds until the model has it."""
        word = uuid.uuid4().hex
        time.sleep(PAUSE_S)
        began = time.monotonic()
        asked = self._pool.submit(self._wait, word.encode())
        do(f"{BODY}{word}")
        return asked.result() - began

    def _wait(self, word: bytes) -> float:
        self._model.wait_for(lambda request: word in request.body and request.has_tools, 60)
        return time.monotonic()


class Bare:
    """The same program by hand in a tmux server of its own: no daemon, no hooks."""

    def __init__(self, program: Program, folder: Path) -> None:
        self._program = program
        self._marks = marks_of(load_manifest(SHIPPED / f"{program.agent}.toml"))
        self._socket = folder / "t.sock"
        self._endpoint = folder / "c.sock"
        self._settings = folder / "settings.json"
        self._server: subprocess.Popen[bytes] | None = None
        # A program draws itself by what the terminal says that it can.
        self._config = folder / "tmux.conf"
        self._config.write_text(config_text({}), encoding="utf-8")
        self._settings.write_text('{"skipDangerousModePermissionPrompt": true}', encoding="utf-8")

    def boot_and_tell(self, text: str) -> None:
        """Start it, wait until it can be told something, and tell it."""
        self.start()
        if not self._program.server_argv:
            wait_until(lambda: self._look().ready)
        self.tell(text)

    def start(self) -> None:
        """Start terminal and own server."""
        program = self._program
        if program.server_argv:
            self._server = subprocess.Popen(
                self._mine(program.server_argv),
                env=program.environ,
                cwd=program.cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            wait_until(self._endpoint.exists)
        size = ("-x", "160", "-y", "50", "-c", program.cwd)
        self._tmux("new-session", "-d", "-s", "m", *size, "--", *self._mine(program.argv))

    def tell(self, text: str) -> None:
        """Hand over one text as this program takes it."""
        if self._program.server_argv:
            asyncio.run(self._queue(text))
        else:
            self._paste(text)

    def end(self) -> None:
        """Kill what was started."""
        with contextlib.suppress(subprocess.CalledProcessError):
            self._tmux("kill-server")
        if self._server is not None:
            self._server.kill()
            self._server.wait()
        self._socket.unlink(missing_ok=True)
        self._endpoint.unlink(missing_ok=True)

    def _mine(self, argv: tuple[str, ...]) -> list[str]:
        """Return a command line with a socket, a session and settings of our own."""
        words = [re.sub(r"unix://\S+", f"unix://{self._endpoint}", word) for word in argv]
        for option, value in (
            ("--session-id", str(uuid.uuid4())),
            ("--settings", str(self._settings)),
        ):
            if option in words:
                words[words.index(option) + 1] = value
        return words

    def _paste(self, text: str) -> None:
        wait_until(lambda: self._look().composer.kind == "empty")
        self._tmux("load-buffer", "-b", "b", "-", text=text)
        self._tmux("paste-buffer", "-p", "-r", "-d", "-b", "b", "-t", "=m:")
        wait_until(lambda: self._look().composer.kind in FILLED)
        press_at = 0.0
        while self._look().composer.kind in FILLED:
            if time.monotonic() >= press_at:
                self._tmux("send-keys", "-t", "=m:", "Enter")
                press_at = time.monotonic() + RE_ENTER_S
            time.sleep(POLL_S)

    def _look(self) -> Screen:
        return read_screen(self._tmux("capture-pane", "-p", "-e", "-t", "=m:"), self._marks)

    async def _queue(self, text: str) -> None:
        wire = await connect(str(self._endpoint), lambda _method, _params: None)
        try:
            client = {"clientInfo": {"name": "bench", "version": "0"}}
            capabilities = {"capabilities": {"experimentalApi": True}}
            await wire.call("initialize", client | capabilities, msgspec.Raw)
            await wire.notify("initialized")
            thread = await _thread(wire)
            await wire.call(
                "thread/queue/add",
                {
                    "threadId": thread,
                    "clientUserMessageId": str(uuid.uuid4()),
                    "input": [{"type": "text", "text": text}],
                },
                msgspec.Raw,
            )
        finally:
            with contextlib.suppress(WireError):
                await wire.close()

    def _tmux(self, *words: str, text: str | None = None) -> str:
        return subprocess.run(
            ["tmux", "-S", str(self._socket), "-f", str(self._config), *words],
            env=self._program.environ,
            input=text,
            capture_output=True,
            encoding="utf-8",
            check=True,
        ).stdout


async def _thread(wire: Wire) -> str:
    while True:
        loaded = (await wire.call("thread/loaded/list", {}, LoadedPage)).data
        if loaded:
            return loaded[-1]
        await asyncio.sleep(POLL_S)


class Bench:
    """One agent, measured both ways by turns."""

    def __init__(self, daemon: AgentDaemon, model: SimulatedModel, agent: str) -> None:
        self._daemon, self._agent = daemon, agent
        self._watch = Stopwatch(model)
        self._name = f"b{agent}"
        daemon.create(self._name, runtime=agent)

    def run(self, cold: int, warm: int) -> dict[str, list[tuple[float, float]]]:
        """Return pairs of seconds, with us and by hand a moment later, cold and warm."""
        self._send()
        program = self._program()
        pairs: dict[str, list[tuple[float, float]]] = {"cold": [], "warm": []}
        for run in range(cold):
            with tempfile.TemporaryDirectory(prefix="iab", dir="/tmp") as folder:
                hand = Bare(program, Path(folder))
                try:
                    self._sleep()
                    pairs["cold"].append((self._send(), self._watch.run(hand.boot_and_tell)))
                    for _ in range(warm // cold + (run < warm % cold)):
                        pairs["warm"].append((self._send(), self._watch.run(hand.tell)))
                finally:
                    hand.end()
        return pairs

    def _send(self) -> float:
        """Send by the daemon; return seconds until the model is asked."""

        def send(text: str) -> None:
            self._last = self._daemon.send(self._name, text, "api-bench")["message_id"]

        taken = self._watch.run(send)
        self._idle()
        return taken

    def _idle(self) -> None:
        wait_until(
            lambda: [turn["end"] for turn in self._daemon.trace(self._last)["turns"]] == ["done"]
        )

    def _sleep(self) -> None:
        """Let the peer sleep, so that the next message starts it anew."""
        self._daemon.run("stop", self._name)
        self._daemon.run("start", self._name)

    def _session(self) -> SessionRow:
        with offline_read(Paths(self._daemon.root).ledger) as conn:
            return [row for row in rows.all_sessions(conn) if row.personality == self._name][-1]

    def _program(self) -> Program:
        """Return how the peer's programs were started."""
        row = self._session()
        environ: dict[str, str] = {}
        argv: tuple[str, ...] = ()
        server_argv: tuple[str, ...] = ()
        for process in processes_of(Path(self._daemon.environ["HOME"])):
            words = tuple(process.cmdline())
            if process.pid == row.pane_pid:
                argv, environ = words, process.environ()
            elif row.endpoint and "app-server" in words and row.endpoint in " ".join(words):
                server_argv = words
        return Program(self._agent, argv, server_argv, environ, row.cwd)


@contextlib.contextmanager
def _daemon(model: SimulatedModel) -> Iterator[AgentDaemon]:
    """Start a daemon in a HOME of its own with the installed agents first on PATH."""
    with tempfile.TemporaryDirectory(prefix="iah", dir="/tmp", ignore_cleanup_errors=True) as home:
        programs = Path(home) / "bin"
        programs.mkdir()
        for agent in AGENTS:
            (programs / load_pins()[agent].command).symlink_to(locate(agent, Path(CACHE).resolve()))
        daemon = AgentDaemon.at(
            Path(home), f"{programs}{os.pathsep}{os.environ['PATH']}", model.url
        )
        try:
            daemon.create("bench", runtime="api")
            daemon.start()
            yield daemon
            daemon.run("stop", "--all")
        finally:
            daemon.clean_up()
            wait_for_none(Path(home))


def main() -> int:
    """Measure, print, compare; return the exit status."""
    cold, warm = (*map(int, sys.argv[1:3]), *(COLD, WARM)[len(sys.argv) - 1 :])
    good = True
    line = "{:8}{:6}{:>5}{:>10}{:>10}{:>10}{:>8}{:>7}\n"
    heads = ("agent", "", "runs", "ours s", "alone s", "beyond s", "limit", "ratio")
    sys.stdout.write(line.format(*heads))
    with SimulatedModel() as model, _daemon(model) as daemon:
        for agent in AGENTS:
            for kind, pairs in Bench(daemon, model, agent).run(cold, warm).items():
                ours, alone = (statistics.median(side) for side in zip(*pairs, strict=True))
                beyond = statistics.median(mine - bare for mine, bare in pairs)
                limit_s = LIMITS_S[kind]
                good = good and beyond <= limit_s
                figures = (f"{figure:.3f}" for figure in (ours, alone, beyond))
                ends = (f"{limit_s:g}", f"{beyond / limit_s:.2f}")
                sys.stdout.write(line.format(agent, kind, len(pairs), *figures, *ends))
                sys.stdout.flush()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
