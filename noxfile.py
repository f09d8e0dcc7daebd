"""The matrix: the same checks and tests on every supported Python (`make matrix`).

Each session installs the wheel, not the source tree, so the packaging is tested as well.
"""

from __future__ import annotations

import nox

PYTHONS = ["3.11", "3.12", "3.13"]

nox.options.default_venv_backend = "uv"
nox.options.reuse_existing_virtualenvs = True
nox.options.stop_on_first_error = False
nox.needs_version = ">=2026.10"


def _install(session: nox.Session) -> None:
    """Install the locked tools, then iapeer from a wheel built with the locked backend."""
    session.install("--require-hashes", "--requirement", "requirements/dev.txt")
    session.install("--no-deps", "--no-build-isolation", "--reinstall-package", "iapeer", ".")


@nox.session(python=PYTHONS)
def check(session: nox.Session) -> None:
    """Types under this Python, and the layers; lint and format do not depend on the version."""
    _install(session)
    version = str(session.python)
    session.run("mypy", "--python-version", version, "--cache-dir", f".cache/mypy-{version}")
    session.run("lint-imports", "--no-logo", "--no-cache")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """All tests against the installed wheel; arguments after `--` go to pytest."""
    _install(session)
    session.run(
        *("pytest", "-n", "2", "--dist", "worksteal", *session.posargs),
        env={"PYTHONWARNDEFAULTENCODING": "1", "PYTHONUTF8": "1"},
    )
