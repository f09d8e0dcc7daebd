"""The `iapeer` command as installers make it of our wheel: there, quick, and the same from each."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from iapeer import __version__

REPOSITORY = Path(__file__).parents[2]
TIMEOUT_S = 60


@pytest.fixture(scope="module", params=["build_wheel", "build_editable"])
def wheel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    code = f"import hatchling.build, sys; hatchling.build.{request.param}(sys.argv[1])"
    run([sys.executable, "-c", code, str(folder)])
    (found,) = folder.glob("*.whl")
    return found


def run(argv: list[str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        argv,
        cwd=REPOSITORY,
        env={**os.environ, "UV_OFFLINE": "1", "UV_NO_CACHE": "1", "UV_LINK_MODE": "copy"},
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def install(wheel: Path, place: Path, installer: str) -> Path:
    """Install a wheel, without what it needs, into a new environment; returns its programs."""
    venv.EnvBuilder(symlinks=True, with_pip=installer == "pip").create(place)
    python = str(place / "bin" / "python")
    if installer == "pip":
        run([python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", str(wheel)])
    else:
        words = ["pip", "install", "--quiet", "--no-deps", "--python", python, str(wheel)]
        run([sys.executable, "-m", "uv", *words])
    return place / "bin"


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_each_installer_makes_a_command_that_runs_where_the_path_has_a_space(
    wheel: Path, tmp_path: Path, installer: str
) -> None:
    programs = install(wheel, tmp_path / "a place", installer)
    assert run([str(programs / "iapeer"), "version"]).stdout == f"{__version__}\n"


def test_the_command_of_uv_imports_next_to_nothing(wheel: Path, tmp_path: Path) -> None:
    programs = install(wheel, tmp_path / "place", "uv")
    told = run([str(programs / "python"), "-X", "importtime", str(programs / "iapeer"), "version"])
    modules = set(re.findall(r"\| +(\S+)$", told.stderr, re.MULTILINE))
    assert modules >= {"iapeer.cli.main"}
    heavy = {"argparse", "enum", "functools", "importlib.metadata", "re", "typing"}
    assert modules & heavy == set()
