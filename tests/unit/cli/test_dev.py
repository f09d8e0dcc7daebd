"""`iapeer dev` becomes the tool that was asked for, or says what it does not understand."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from iapeer.cli import main


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What this process became, after its interpreter."""
    words: list[str] = []

    def become(program: str, argv: list[str]) -> None:
        assert program == sys.executable == argv[0]
        words.extend(argv[1:])
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "execv", become)
    return words


def test_conformance_gets_its_options_and_the_users_manifests(
    became: list[str], environ: dict[str, str], root: Path
) -> None:
    line = ["dev", "conformance", "mytool", "--path", "/b", "--env", "A=1", "--env=B=--x", "--json"]
    assert main.main([*line, "--home-file", "a/b=c", "--timeout", "90"]) == main.INTERRUPTED
    assert became == [
        "-P",
        "-m",
        "iapeer.testing.conformance",
        "--path=/b",
        "--env=A=1",
        "--env=B=--x",
        "--home-file=a/b=c",
        "--timeout=90",
        "--json",
        f"--runtimes={root / 'runtimes'}",
        "--",
        "mytool",
    ]


def test_the_model_server_gets_port_and_script(became: list[str]) -> None:
    line = ["dev", "model-server", "--port", "0", "--script", "rules.toml"]
    assert main.main(line) == main.INTERRUPTED
    assert became == ["-P", "-m", "iapeer.testing.model_server", "--port=0", "--script=rules.toml"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (["zzz"], "there is no action 'zzz'"),
        (["conformance"], "conformance needs <runtime>"),
        (["conformance", "demo", "--port", "1"], "conformance takes no --port"),
        (["conformance", "demo", "--json", "--markdown"], "--json and --markdown exclude"),
        (["model-server", "demo"], "model-server does not know what to do with 'demo'"),
        (["model-server", "--json"], "model-server takes no --json"),
    ],
)
def test_what_does_not_fit_is_told_and_nothing_is_started(
    line: list[str], told: str, became: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["dev", *line]) == 2
    assert f"iapeer dev: {told}" in capsys.readouterr().err
    assert became == []
