from __future__ import annotations

import os
from pathlib import Path

import pytest

from iapeer.client import hook
from iapeer.core import env


def test_an_input_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook, "TIMEOUT_S", 0.05)
    reader, writer = os.pipe()
    try:
        os.write(writer, b"{")
        with pytest.raises(TimeoutError, match="did not end"):
            hook._read_input(reader)
    finally:
        os.close(reader)
        os.close(writer)


def test_no_more_than_one_byte_too_many_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(hook, "INPUT_MAX", 10)
    big = tmp_path / "big"
    big.write_bytes(b"x" * 100)
    fd = os.open(big, os.O_RDONLY)
    try:
        assert hook._read_input(fd) == b"x" * 11
    finally:
        os.close(fd)


def test_without_a_session_not_even_the_input_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert hook.main([], {env.HOME: "/nonexistent"}) == 0
    assert capsys.readouterr() == ("", "")


def test_a_wrong_command_line_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert hook.main(["x"], {}) == 2
    assert capsys.readouterr().err.startswith("usage:")
