"""One run of `npm ci`: isolated, watched, bounded, and without running a package's code."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import AgentError, DownloadFailed, NotForThisMachine, WrongContent

TRY_S = 150.0
"""One download; measured: 160 MB (codex) in 6 s. Three tries stay below 8 minutes."""
PROGRESS_S = 5.0
_POLL_S = 0.1
_END_S = 10.0
_KEPT_LINES = 4

_ARGV = (
    "ci",
    "--ignore-scripts",  # code of a package must not run where a person's files are
    "--no-audit",
    "--no-fund",
    "--no-update-notifier",
    "--no-progress",
    "--loglevel=error",
)
_KEPT = re.compile(
    # Where to fetch from and how to get there is the machine's business; the hash decides.
    r"(npm_config_\w+|(https?|no|all)_proxy|ssl_cert_(file|dir)|node_extra_ca_certs|path|lang)",
    re.IGNORECASE,
)


def find_npm(environ: Mapping[str, str]) -> str:
    """Return the npm on PATH. Raises NotForThisMachine without one."""
    found = shutil.which("npm", path=environ.get("PATH"))
    if found is None:
        raise NotForThisMachine(
            "npm is missing", hint="install node, which brings it; the agents come from npm"
        )
    return found


@dataclass(frozen=True)
class NpmRun:
    """Folders of one run: `project` gets node_modules, `scratch` the HOME, cache and log."""

    npm: str
    project: Path
    scratch: Path
    environ: Mapping[str, str]
    stop: threading.Event

    def ci(self, progress: Callable[[int, float], None], try_s: float = TRY_S) -> None:
        """Install what the project's lock says.

        `progress` is called now and then with the bytes on disk and the seconds since the start.

        Raises WrongContent when a hash differs, DownloadFailed for every other failure, AgentError
        when `stop` is set.
        """
        log = self.scratch / "npm.log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [self.npm, *_ARGV],
                cwd=self.project,
                env=self._environ(),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )
        try:
            ended = self._watch(process, progress, try_s)
        finally:
            _end(process)
        if not ended:
            raise DownloadFailed(f"no end after {try_s:g} s")
        if process.returncode != 0:
            raise _failure(process.returncode, log.read_text(encoding="utf-8", errors="replace"))

    def _watch(
        self,
        process: subprocess.Popen[bytes],
        progress: Callable[[int, float], None],
        try_s: float,
    ) -> bool:
        """Wait for the end, telling the progress; False when it takes too long."""
        began = time.monotonic()
        told = began
        while process.poll() is None:
            if self.stop.wait(_POLL_S):
                raise AgentError("the install was stopped")
            now = time.monotonic()
            if now - began > try_s:
                return False
            if now - told > PROGRESS_S:
                told = now
                progress(_size(self.scratch) + _size(self.project), now - began)
        return True

    def _environ(self) -> dict[str, str]:
        """Keep the machine's npm configuration, and nothing else of the person's environment."""
        kept = {name: value for name, value in self.environ.items() if _KEPT.fullmatch(name)}
        # npm reads its variables in either case, so ours must be the only one of their name.
        names = {name.lower(): name for name in kept}
        kept.pop(names.get("npm_config_cache", ""), None)
        theirs = Path(self.environ.get("HOME", "/"), ".npmrc")
        if "npm_config_userconfig" not in names and theirs.is_file():
            kept["npm_config_userconfig"] = str(theirs)
        home = self.scratch / "home"
        home.mkdir(exist_ok=True)
        return kept | {"HOME": str(home), "npm_config_cache": str(self.scratch / "npm")}


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill npm and its helpers, unless it ended by itself."""
    if process.poll() is None:
        # Not yet waited for: the id of its group can't have become another's.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=_END_S)


def _failure(status: int, text: str) -> AgentError:
    lines = [line.removeprefix("npm error").strip() for line in text.splitlines()]
    # The first lines name the code and the reason, the last ones repeat them as an object.
    said = "; ".join([line for line in lines if line][:_KEPT_LINES]) or "it said nothing"
    if "EINTEGRITY" in text:
        return WrongContent(
            f"what came is not what is pinned: {said}",
            hint="do not run it; look at where npm downloads from",
        )
    return DownloadFailed(f"npm ended with status {status}: {said}")


def _size(folder: Path) -> int:
    """Return the bytes on disk below a folder that is being written to."""
    total = 0
    for path, _folders, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                total += Path(path, name).lstat().st_blocks * 512
    return total
