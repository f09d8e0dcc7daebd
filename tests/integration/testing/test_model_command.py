"""`python -m iapeer.testing.model_server`, as a test rig starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from tests.integration.testing.model_client import Said, ask, read

COMMAND = [sys.executable, "-m", "iapeer.testing.model_server"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_prints_its_address_serves_and_stops_when_told(
    tmp_path: Path, number: signal.Signals
) -> None:
    script = tmp_path / "rules.toml"
    script.write_text(
        "[[rule]]\nwhen = 'x'\nthen = [{ say = 'from the file' }]\n", encoding="utf-8"
    )
    env = os.environ | {"HOME": str(tmp_path)}
    with subprocess.Popen(
        [*COMMAND, "--port", "0", "--script", str(script)],
        stdout=subprocess.PIPE,
        encoding="utf-8",
        env=env,
    ) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            with httpx2.Client(trust_env=False, timeout=20) as http:
                answer = http.post(f"{url}/v1/messages", json=ask("messages", "x"))
            assert read("messages", answer) == Said("from the file")
            process.send_signal(number)
            assert process.wait(20) == 0
        finally:
            process.kill()


def test_a_bad_script_is_said_on_stderr(tmp_path: Path) -> None:
    script = tmp_path / "rules.toml"
    script.write_text("[[rule]]\nwhen = '('\nthen = [{ say = 'x' }]\n", encoding="utf-8")
    found = subprocess.run(
        [*COMMAND, "--script", str(script)],
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=60,
        env=os.environ | {"HOME": str(tmp_path)},
    )
    assert found.returncode == 2
    assert "rules.toml" in found.stderr
    assert "Traceback" not in found.stderr


def test_a_port_that_is_none_is_said_on_stderr(tmp_path: Path) -> None:
    found = subprocess.run(
        [*COMMAND, "--port", "70000"],
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=60,
        env=os.environ | {"HOME": str(tmp_path)},
    )
    assert found.returncode == 1
    assert "70000" in found.stderr
