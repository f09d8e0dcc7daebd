"""Into the cache folder, whole or not at all; and where a program is once it is there."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from iapeer.core.errors import LockBusy
from iapeer.storage.locks import TryLock, holder_pid

from .errors import AgentError, DownloadFailed, NotInstalled
from .npm import NpmRun, find_npm
from .pins import Pin, Program, package_json, package_lock, pin_of, stamp

CACHE = Path(".cache/agents")
"""Below the folder the command runs in: the project."""
OVERRIDE = "IAPEER_TEST_AGENT_"
"""`IAPEER_TEST_AGENT_CLAUDE=/path/to/claude`: drive that program instead, say a newer version."""

TRIES = 3
PAUSES_S = (2.0, 5.0)
"""Between the tries."""
_LOCK_S = 600.0
"""Another run may need all its tries."""
_STAMP = "installed.json"
_MB = 1_000_000


def locate(
    name: str, cache: Path | None = None, *, environ: Mapping[str, str] | None = None
) -> Path:
    """Return the program of an agent, an absolute path whose name is the agent's command.

    `IAPEER_TEST_AGENT_<NAME>` in `environ` (the process's own by default) wins over the install
    in `cache` (`.cache/agents` by default).

    Raises NotInstalled, NotForThisMachine without a pin for this platform, InvalidInput for a
    name that is not pinned.
    """
    pin = pin_of(name)
    variable = OVERRIDE + name.upper()
    named = (os.environ if environ is None else environ).get(variable)
    if named:
        if not os.access(named, os.X_OK) or not Path(named).is_file():
            raise NotInstalled(f"{variable} names {named}, which is no program")
        return Path(named).absolute()
    program = pin.here()
    folder = _folder(cache or CACHE, name, pin)
    if not _is_whole(folder, pin, program):
        raise NotInstalled(
            f"{name} {pin.version} is not installed in {folder.parent}",
            hint=f"python -m iapeer.testing.agents install {name}",
        )
    return folder / "bin" / pin.command


@dataclass
class Installer:
    """Installs into `cache`; `say` gets one plain line at a time, from several threads."""

    cache: Path = CACHE
    say: Callable[[str], None] = print
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    stop: threading.Event = field(default_factory=threading.Event)
    """Set from anywhere: running installs end soon, with AgentError, and clean up."""

    def install(self, name: str) -> Path:
        """Return the program, installed if it was not there yet (else within milliseconds).

        Any number of processes may ask at once: one does it, the others wait.

        Raises:
            NotForThisMachine: npm or a pinned build for this platform is missing.
            DownloadFailed: all tries failed.
            WrongContent: the pinned hash and what came differ.
            LockBusy: another run holds the lock for longer than it may need.
        """
        pin = pin_of(name)
        program = pin.here()
        folder = _folder(self.cache, name, pin)
        if not _is_whole(folder, pin, program):
            self.cache.mkdir(parents=True, exist_ok=True)
            with self._lock(name):
                if not _is_whole(folder, pin, program):
                    self._make(name, pin, folder)
        return folder / "bin" / pin.command

    def _make(self, name: str, pin: Pin, folder: Path) -> None:
        """Download beside the final place and rename: a half-made install is never seen."""
        npm = find_npm(self.environ)
        leftovers = f".new-{name}-"
        for old in self.cache.resolve().glob(f"{leftovers}*"):
            shutil.rmtree(old)
        began = time.monotonic()
        scratch = Path(tempfile.mkdtemp(prefix=leftovers, dir=self.cache)).resolve()
        try:
            project = scratch / "project"
            project.mkdir()
            self._download(name, pin, NpmRun(npm, project, scratch, self.environ, self.stop))
            _finish(project, pin, pin.here())
            if folder.exists():
                folder.rename(scratch / "old")
            project.rename(folder)
        finally:
            shutil.rmtree(scratch)
        self.say(f"{name} {pin.version}: installed in {time.monotonic() - began:.0f} s")

    def _download(self, name: str, pin: Pin, run: NpmRun) -> None:
        program = pin.here()
        texts = {
            "package.json": package_json(pin, program),
            "package-lock.json": package_lock(pin, program),
        }
        for file, text in texts.items():
            (run.project / file).write_text(text, encoding="utf-8")

        def progress(size: int, seconds: float) -> None:
            self.say(f"{name} {pin.version}: {size // _MB} MB on disk after {seconds:.0f} s")

        self.say(f"{name} {pin.version}: downloading {program.package}")
        for number in range(1, TRIES + 1):
            try:
                run.ci(progress)
            except DownloadFailed as error:
                self.say(f"{name} {pin.version}: try {number} of {TRIES} failed: {error.message}")
                if number == TRIES:
                    raise DownloadFailed(
                        f"{name} {pin.version} could not be downloaded in {TRIES} tries",
                        hint="see above; npm's configuration says where from",
                    ) from error
                self.stop.wait(PAUSES_S[number - 1])
            else:
                return

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        path = self.cache / f".{name}.lock"
        lock = TryLock(path)
        if not lock.acquire():
            self.say(f"{name}: waiting for another run that is installing it")
            self._wait_for(lock, path, name)
        try:
            yield
        finally:
            lock.release()

    def _wait_for(self, lock: TryLock, path: Path, name: str) -> None:
        deadline = time.monotonic() + _LOCK_S
        while not lock.acquire(0.5):
            if self.stop.is_set():
                raise AgentError("the install was stopped")
            if time.monotonic() > deadline:
                pid = holder_pid(path)
                raise LockBusy(f"{name} is being installed for {_LOCK_S:g} s by {pid or 'another'}")


def _folder(cache: Path, name: str, pin: Pin) -> Path:
    return cache.absolute() / f"{name}-{pin.version}"


def _finish(project: Path, pin: Pin, program: Program) -> None:
    """Give the program its name on PATH, then stamp the install."""
    target = Path("node_modules", program.package, program.program)
    found = project / target
    if not found.is_file():
        raise AgentError(f"{program.package} holds no {program.program}")
    found.chmod(0o755)
    (project / "bin").mkdir()
    (project / "bin" / pin.command).symlink_to(".." / target)
    made = {"stamp": stamp(pin, program), "size": found.stat().st_size}
    (project / _STAMP).write_text(json.dumps(made) + "\n", encoding="utf-8")


def _is_whole(folder: Path, pin: Pin, program: Program) -> bool:
    """Tell whether exactly this pin is installed there, to the last byte of the program."""
    try:
        made = json.loads((folder / _STAMP).read_text(encoding="utf-8"))
        size = (folder / "bin" / pin.command).stat().st_size
    except (OSError, ValueError):
        return False
    return bool(made == {"stamp": stamp(pin, program), "size": size})
