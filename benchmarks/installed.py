"""iapeer as its users have it: a wheel in an environment of its own, not the source tree."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
_INSTALL_S = 120


@dataclass(frozen=True)
class Installed:
    """The interpreter of that environment, which the limits run in too, and its `iapeer`."""

    python: str
    program: str


@contextmanager
def installed() -> Iterator[Installed]:
    """Build the wheel and install it with uv, offline; the environment is gone afterwards.

    An editable install is no measure: its `.pth` file and those of the development tools are read
    at every start. Packages of others are links to those that are installed here.

    Raises RuntimeError with what uv says.
    """
    with tempfile.TemporaryDirectory(prefix="iap", dir="/tmp") as name:
        folder = Path(name)
        venv.EnvBuilder(symlinks=True).create(folder)
        python, modules = folder / "bin" / "python", _modules(folder)
        for package in _modules(Path(sys.prefix)).iterdir():
            if package.suffix != ".pth" and not package.name.startswith(("iapeer", "__pycache__")):
                (modules / package.name).symlink_to(package)
        words = "--quiet --no-config --no-cache --offline --link-mode copy --compile-bytecode"
        done = subprocess.run(
            [
                *(sys.executable, "-m", "uv", "pip", "install", *words.split()),
                *("--no-deps", "--no-build-isolation", "--python", str(python), str(REPOSITORY)),
            ],
            capture_output=True,
            encoding="utf-8",
            timeout=_INSTALL_S,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"iapeer can't be installed: {done.stderr}")
        yield Installed(str(python), str(folder / "bin" / "iapeer"))


def _modules(environment: Path) -> Path:
    base = str(environment)
    return Path(sysconfig.get_path("purelib", "venv", {"base": base, "platbase": base}))
