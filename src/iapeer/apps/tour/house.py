"""A throw-away root with a daemon of its own, used as a user uses one: by command line and HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from iapeer.client import hot
from iapeer.core import env
from iapeer.core.errors import IapeerError
from iapeer.core.identity import Identity, socket_name
from iapeer.storage.atomic import write_text
from iapeer.storage.paths import Paths, launch_env_path

from .keeper import Report, clean, environment, iapeer_argv, root_of
from .plan import Plan

COMMAND_S = 40.0
"""Longest wait for one command; `send` itself gives up after 30 s."""
READY_S = 15.0
KEEPER_S = 10.0
CLOSE_S = 25.0
"""A little more than the keeper may need."""
_CALL_S = 5.0
_CAPTURE_S = 2.0
_LOOK_S = 0.05


class TourFailed(Exception):
    """The tour can't go on; the text says why, in a sentence for the user."""


class Done(msgspec.Struct, frozen=True):
    """How a command ended."""

    status: int
    out: str
    err: str


class House:
    """The root and everything that runs on it; `open` and `close` are called once each."""

    def __init__(self, base: Path, keeper: asyncio.subprocess.Process, plan: Plan) -> None:
        self.base = base
        self._daemon: asyncio.subprocess.Process | None = None
        self._keeper = keeper
        self._paths = Paths(root_of(base))
        home = plan.home or base / "home"
        self._environ = {
            **environment(base, os.environ),
            env.HOME: str(home),
            env.RUNTIMES_DIR: str(plan.runtimes_dir),
        }
        self._login = plan.login
        if plan.login is not None:
            own = os.environ.get("PATH", os.defpath)
            self._environ["PATH"] = f"{plan.login.program_dir}{os.pathsep}{own}"
        self._log = base / "daemon.log"

    @classmethod
    async def open(cls, plan: Plan) -> House:
        """Start the keeper, which makes the root. Raises TourFailed."""
        keeper = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            f"{__package__}.keeper",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd="/",
            start_new_session=True,
        )
        assert keeper.stdout is not None  # noqa: S101 - a pipe was asked for
        try:
            line = await asyncio.wait_for(keeper.stdout.readline(), KEEPER_S)
        except TimeoutError:
            line = b""
        if not line.endswith(b"\n"):
            raise TourFailed("no throw-away folder could be made")
        house = cls(Path(os.fsdecode(line.rstrip(b"\n"))), keeper, plan)
        if plan.home is None:
            (house.base / "home").mkdir(mode=0o700)
        return house

    @property
    def socket(self) -> str:
        """Return the path of the daemon's unix socket."""
        return hot.socket_path(self._environ)

    @property
    def daemon_pid(self) -> int:
        """Return the daemon's pid; 0 before it was started."""
        return self._daemon.pid if self._daemon is not None else 0

    @property
    def delivery_log(self) -> Path:
        """Return the log that has one line per message."""
        return self._paths.delivery_log

    async def start_daemon(self) -> None:
        """Start the daemon and wait until it answers. Raises TourFailed."""
        with self._log.open("wb") as log:
            daemon = await asyncio.create_subprocess_exec(
                *iapeer_argv("daemon", "--port", "0"),
                env=self._environ,
                cwd=self.base,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._daemon = daemon
        until = asyncio.get_running_loop().time() + READY_S
        while asyncio.get_running_loop().time() < until:
            with contextlib.suppress(TourFailed):
                await self.get("ping")
                return
            with contextlib.suppress(TimeoutError):
                status = await asyncio.wait_for(daemon.wait(), _LOOK_S)
                raise TourFailed(f"the daemon ended with status {status} instead of starting")
        raise TourFailed(f"the daemon did not answer within {READY_S:g} s")

    def log_in(self, agent: Identity) -> None:
        """Give an agent that was created the variables of the plan's login, if it has one."""
        if self._login is not None:
            path = launch_env_path(self._paths.peer_home(agent.personality), agent.runtime)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lines = (f"{name}={value}\n" for name, value in self._login.variables.items())
            write_text(path, "".join(lines))

    async def run(self, *words: str) -> Done:
        """Run one `iapeer` command. Raises TourFailed when it fails, with what it said."""
        process = await asyncio.create_subprocess_exec(
            *iapeer_argv(*words),
            env=self._environ,
            cwd=self.base,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(), COMMAND_S)
        except TimeoutError:
            raise TourFailed(f"`iapeer {words[0]}` took more than {COMMAND_S:g} s") from None
        done = Done(process.returncode or 0, _text(out), _text(err))
        if done.status:
            raise TourFailed(f"`iapeer {words[0]}` failed: {done.err or done.out}")
        return done

    async def get(self, path: str) -> dict[str, Any]:
        """Ask the daemon's HTTP API below `/api/v1/`. Raises TourFailed."""
        try:
            status, answer = await asyncio.to_thread(
                hot.request, "GET", f"/api/v1/{path}", socket_path=self.socket, timeout_s=_CALL_S
            )
        except (hot.DaemonUnreachable, hot.BadAnswer) as error:
            raise TourFailed(str(error)) from None
        if status != 200 or not isinstance(answer, dict):
            raise TourFailed(f"the daemon answered {status} to /api/v1/{path}")
        return answer

    async def screen(self, identity: Identity) -> list[str]:
        """Return the lines of an agent's terminal; none while it has no session."""
        sockets = Path(self._environ[env.ROOT]) / "socks"
        process = await asyncio.create_subprocess_exec(
            os.environ.get(env.TMUX) or "tmux",
            "-u",
            "-S",
            str(sockets / socket_name(identity)),
            "capture-pane",
            "-p",
            "-t",
            f"={identity.address}:",
            env=self._environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            out, _err = await asyncio.wait_for(process.communicate(), _CAPTURE_S)
        except TimeoutError:
            return []
        return out.decode("utf-8", "replace").splitlines() if process.returncode == 0 else []

    def log_tail(self, lines: int = 15) -> list[str]:
        """Return the last lines the daemon has written; none when it never ran."""
        try:
            return self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
        except OSError:
            return []

    async def close(self) -> Report:
        """Let the keeper clear everything away and return what it did.

        Should the keeper itself have been killed, its work is done here.
        """
        assert self._keeper.stdin is not None  # noqa: S101 - a pipe was asked for
        self._keeper.stdin.close()
        try:
            said, _ = await asyncio.wait_for(self._keeper.communicate(), CLOSE_S)
            report = msgspec.json.decode(said, type=Report)
        except (TimeoutError, msgspec.DecodeError):
            report = await asyncio.to_thread(clean, self.base)
        if self._daemon is not None and not report.left:
            await self._daemon.wait()  # it is gone; nothing but its exit status is waited for
        return report


def explain(error: BaseException) -> str:
    """Return an error as a user reads it."""
    if isinstance(error, IapeerError):
        return f"{error.message}\nhint: {error.hint}" if error.hint else error.message
    if isinstance(error, TourFailed):
        return str(error)
    return f"internal error: {type(error).__name__}: {error}"


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace").strip()
