from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

from iapeer import __version__
from iapeer.cli import grammar, main
from iapeer.cli.verb import Verb
from iapeer.cli.verbs import BY_NAME, VERBS
from iapeer.core.errors import PeerNotFound

from .conftest import FakeDaemon, Run

Out = pytest.CaptureFixture[str]


def test_the_overview_shows_every_verb(capsys: Out, snapshot: SnapshotAssertion) -> None:
    assert main.main(["--help"]) == 0
    shown = capsys.readouterr()
    assert shown.out == snapshot
    assert shown.err == ""


@pytest.mark.parametrize("verb", VERBS, ids=list(BY_NAME))
def test_the_help_of_a_verb_is_whole(verb: Verb, capsys: Out, snapshot: SnapshotAssertion) -> None:
    assert main.main([verb.name, "--help"]) == 0
    shown = capsys.readouterr()
    assert shown.out == snapshot
    assert shown.err == ""
    assert len(verb.examples) >= 2


@pytest.mark.requirement("cli:help:anywhere")
@pytest.mark.parametrize("verb", VERBS, ids=list(BY_NAME))
def test_help_is_the_same_however_it_is_asked_for(verb: Verb, capsys: Out) -> None:
    expected = grammar.explain(verb) + "\n"
    for line in (
        [verb.name, "-h"],
        ["help", verb.name],
        ["--help", verb.name],
        [verb.name, "a", "-h"],
    ):
        assert main.main(line) == 0
        assert capsys.readouterr() == (expected, "")


@pytest.mark.requirement("cli:help:anywhere")
@pytest.mark.parametrize("verb", VERBS, ids=list(BY_NAME))
def test_help_does_nothing_else(verb: Verb, daemon: FakeDaemon, root: Path, capsys: Out) -> None:
    before = sorted(root.rglob("*"))
    words = [f"word{number}" for number, _ in enumerate(verb.arguments)]
    assert main.main([verb.name, *words, "--json", "--all", "--force", "--fix", "--help"]) == 0
    assert daemon.asked == []
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize("verb", VERBS, ids=list(BY_NAME))
def test_every_example_of_the_help_is_understood(verb: Verb) -> None:
    import shlex

    for example in verb.examples:
        words = shlex.split(example.rpartition("| ")[2])
        assert words[0] == "iapeer"
        if verb.name == "launch" and words[1] != "launch":
            words.insert(1, "launch")  # the short form
        if not words[1].startswith("--"):
            assert words[1] == verb.name
            assert grammar.parse(verb, words[2:]) is not None


@pytest.mark.parametrize("verb", VERBS, ids=list(BY_NAME))
def test_every_verb_has_a_function_that_does_it(verb: Verb) -> None:
    assert callable(main._handler(verb))


def test_help_lines_fit_a_terminal() -> None:
    wide = [line for verb in VERBS for line in grammar.explain(verb).splitlines() if len(line) > 88]
    assert wide == []


def test_no_verb_at_all_is_usage_on_stderr(capsys: Out) -> None:
    assert main.main([]) == 2
    assert capsys.readouterr() == ("", grammar.overview() + "\n")


@pytest.mark.requirement("cli:usage")
@pytest.mark.parametrize("line", [["lst"], ["lst", "--json"], ["help", "lst"]])
def test_an_unknown_verb_says_what_there_is(line: list[str], capsys: Out) -> None:
    assert main.main(line) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "unknown verb 'lst'\nhint: did you mean list?\n" in err


def test_an_unknown_verb_lists_the_known_ones(capsys: Out) -> None:
    assert main.main(["qqq"]) == 2
    assert capsys.readouterr().err == (f"iapeer: unknown verb 'qqq'\nverbs: {' '.join(BY_NAME)}\n")


@pytest.mark.requirement("cli:bare-runtime:typo")
def test_a_mistyped_runtime_is_offered_too(capsys: Out) -> None:
    assert main.main(["cluade"]) == 2
    assert "unknown verb 'cluade'\nhint: did you mean claude?\n" in capsys.readouterr().err


@pytest.mark.requirement("cli:version")
@pytest.mark.parametrize("line", [["version"], ["--version"], ["-v"]])
def test_the_version_is_one_line(line: list[str], capsys: Out) -> None:
    assert main.main(line) == 0
    assert capsys.readouterr() == (f"{__version__}\n", "")


@pytest.mark.requirement("cli:errors")
def test_an_error_is_a_sentence_and_a_hint(capsys: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(call: grammar.Call) -> int:
        raise PeerNotFound("peer 'x' is not registered", hint="look")

    monkeypatch.setattr(main, "_handler", lambda verb: broken)
    assert main.main(["status"]) == 1
    assert capsys.readouterr() == ("", "iapeer status: peer 'x' is not registered\nhint: look\n")


def test_an_error_of_the_system_names_the_file(
    capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(call: grammar.Call) -> int:
        raise FileNotFoundError(2, "No such file or directory", "/nowhere")

    monkeypatch.setattr(main, "_handler", lambda verb: broken)
    assert main.main(["status"]) == 1
    assert capsys.readouterr().err == "iapeer status: No such file or directory: /nowhere\n"


def test_a_defect_of_ours_is_told_without_a_traceback(
    capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(call: grammar.Call) -> int:
        raise KeyError("peers")

    monkeypatch.setattr(main, "_handler", lambda verb: broken)
    assert main.main(["status"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("iapeer status: internal error: KeyError: 'peers' (")
    assert "line " in err
    assert "Traceback" not in err


def test_ctrl_c_ends_quietly_with_130(
    daemon: FakeDaemon, environ: dict[str, str], root: Path
) -> None:
    # `send` waits for a stdin that never ends; it has read nothing else by then.
    with subprocess.Popen(
        [sys.executable, "-m", "iapeer", "send", "bob", "--message-file", "-", "--from", "a-b"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environ,
        cwd=root,
    ) as process:
        _wait_for_read(process.pid)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, b"", b"")
    assert daemon.asked == []


def _wait_for_read(pid: int) -> None:
    """Wait until the process sleeps in a read of its stdin pipe."""
    import time

    deadline = time.monotonic() + 30
    while "pipe" not in Path(f"/proc/{pid}/wchan").read_text(encoding="ascii"):
        if time.monotonic() > deadline:
            pytest.fail("the command never read its stdin")
        time.sleep(0.01)


def test_a_reader_that_goes_away_is_no_error(
    daemon: FakeDaemon, environ: dict[str, str], root: Path
) -> None:
    peer = {
        "default_runtime": "claude",
        "intelligence": "artificial",
        "description": "x" * 400,
        "cwd": "/x",
        "runtimes": ["claude"],
        "statuses": {},
    }
    peers = [{"personality": f"p{number}", **peer} for number in range(1000)]
    daemon.on("GET", "/api/v1/peers", {"ok": True, "peers": peers})
    for unbuffered in ("", "1"):
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            [sys.executable, "-m", "iapeer", "list", "--json"],
            stdout=writer,
            stderr=subprocess.PIPE,
            env={**environ, "PYTHONUNBUFFERED": unbuffered},
            timeout=60,
            check=False,
        )
        os.close(writer)
        assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_can_not_be_written_is_an_error(
    environ: dict[str, str], unbuffered: str
) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "iapeer", "version"],
            stdout=full,
            stderr=subprocess.PIPE,
            env={**environ, "PYTHONUNBUFFERED": unbuffered},
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == b"iapeer version: can't write the output: No space left on device\n"


def test_a_terminal_without_our_characters_still_gets_an_answer(process: Run) -> None:
    done = process("list", "--help", env={"PYTHONIOENCODING": "ascii"})
    assert done.status == 0
    assert "? live" in done.out


def test_python_m_is_the_command_with_its_exit_status(process: Run) -> None:
    assert process("version").out == f"{__version__}\n"
    assert process("lst").status == 2
