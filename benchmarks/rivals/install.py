"""Pinned installs into `.cache/rivals/`: from npm by a lock with hashes, from pip by versions.

No code of a package runs during an install, but for those that are named as to be compiled.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.rivals.readings import NotRun
from iapeer.testing.agents.errors import AgentError
from iapeer.testing.agents.npm import NpmRun, find_npm

CACHE = Path(__file__).parents[2] / ".cache" / "rivals"
PINS = Path(__file__).with_name("pins")
_STAMP = "installed"
_PIP_S = 600.0
_BUILD_S = 300.0
"""Compiling SQLite: 30 s of one core, measured 84 s on a busy machine."""


def from_npm(name: str, compiled: Sequence[str] = ()) -> Path:
    """Install `pins/<name>` and return the folder that holds `node_modules`.

    `compiled`: packages whose native part is built from the source they bring, by their own install
    script. Raises NotRun.
    """
    lock = PINS / name / "package-lock.json"
    folder = CACHE / name
    stamp = _stamp(lock, *compiled, _output(["node", "--version"]))
    if _is_made(folder, stamp):
        return folder
    _clear(folder)
    shutil.copy(lock, folder)
    shutil.copy(lock.with_name("package.json"), folder)
    tool = CACHE / f".npm-{name}"
    _clear(tool)
    try:
        npm = find_npm(os.environ)
        run = NpmRun(npm, folder, tool, os.environ, threading.Event())
        run.ci(lambda size, seconds: _say(f"{name}: {size // 10**6} MB after {seconds:.0f} s"))
        if compiled:
            _compile(npm, folder, tool, compiled)
    except AgentError as error:
        raise NotRun(f"{name} could not be installed: {error.message}") from error
    finally:
        shutil.rmtree(tool)
    (folder / _STAMP).write_text(stamp, encoding="utf-8")
    return folder


def from_pip(name: str) -> Path:
    """Install `pins/<name>.txt` into an environment of its own; return its interpreter.

    Only wheels: nothing of a package runs. Where from is pip's configuration. Raises NotRun.
    """
    pins = PINS / f"{name}.txt"
    folder = CACHE / name
    stamp = _stamp(pins, sys.version)
    program = folder / "bin" / "python"
    if _is_made(folder, stamp):
        return program
    _clear(folder)
    _say(f"{name}: installing with pip")
    pip = ("-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check")
    words = ("--no-deps", "--only-binary=:all:", "-r", str(pins))
    _run([sys.executable, "-m", "venv", str(folder)], os.environ, name)
    _run([str(program), *pip, *words], os.environ, name)
    (folder / _STAMP).write_text(stamp, encoding="utf-8")
    return program


def _compile(npm: str, folder: Path, tool: Path, packages: Sequence[str]) -> None:
    home = tool / "home"
    home.mkdir(exist_ok=True)
    environ = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "npm_config_cache": str(tool / "npm"),
    }
    theirs = Path(os.environ.get("HOME", "/"), ".npmrc")
    if theirs.is_file():
        environ["npm_config_userconfig"] = str(theirs)
    _say(f"compiling {', '.join(packages)}")
    argv = [npm, "rebuild", "--build-from-source", "--loglevel=error", *packages]
    _run(argv, environ, " and ".join(packages), folder)


def _run(
    argv: Sequence[str], environ: Mapping[str, str], name: str, folder: Path | None = None
) -> None:
    """Run a step of an install. Raises NotRun with the end of what it said."""
    try:
        done = subprocess.run(
            argv,
            env=environ,
            cwd=folder or CACHE,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_BUILD_S if folder else _PIP_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotRun(f"{name} could not be installed: {error}") from error
    if done.returncode:
        words = " ".join((done.stdout + done.stderr).decode(errors="replace").split())
        raise NotRun(f"{name} could not be installed: {words[-300:]}")


def _output(argv: Sequence[str]) -> str:
    try:
        return subprocess.run(
            argv, capture_output=True, encoding="utf-8", check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise NotRun(f"{argv[0]} is missing") from error


def _stamp(pins: Path, *more: str) -> str:
    words = "\0".join([platform.machine(), *more]).encode()
    return hashlib.sha256(pins.read_bytes() + words).hexdigest()


def _is_made(folder: Path, stamp: str) -> bool:
    try:
        return (folder / _STAMP).read_text(encoding="utf-8") == stamp
    except OSError:
        return False


def _clear(folder: Path) -> None:
    """Make a folder that is empty: half an install is not gone on with."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


def _say(words: str) -> None:
    sys.stderr.write(f"{words}\n")
