from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from iapeer.core import env
from iapeer.storage import faults


def child(point: str, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys; from iapeer.storage.faults import fault\n"
        "try: fault(sys.argv[1]); print('alive')\n"
        "finally: print('unwound')\n"
    )
    source = Path(faults.__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-c", code, point],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(source), **environ},
        capture_output=True,
        encoding="utf-8",
        timeout=30,
        check=False,
    )


def test_the_point_that_was_asked_for_kills_without_unwinding() -> None:
    done = child("rename.registry", {env.FAULT: "rename.registry"})
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "")


@pytest.mark.parametrize("environ", [{}, {env.FAULT: "rename"}, {env.FAULT: ""}])
def test_any_other_point_does_nothing(environ: dict[str, str]) -> None:
    done = child("rename.registry", environ)
    assert (done.returncode, done.stdout) == (0, "alive\nunwound\n")
