from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iapeer.storage import logs
from iapeer.storage.logs import Delivery, LogFile, delivery_record, lifecycle_record

NOON = 1_790_000_000.1239


def lines_of(folder: Path, name: str = "x.log") -> list[str]:
    """Return all lines, oldest first."""
    files = sorted(
        (path for path in folder.iterdir() if path.name.startswith(name)),
        key=lambda path: -int(path.suffix[1:]) if path.suffix[1:].isdigit() else 0,
    )
    return [line for path in files for line in path.read_text("utf-8").splitlines()]


@pytest.mark.requirement("logs:private")
def test_append_makes_the_folder_0700_and_the_file_0600(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "iapeer" / "x.log"
    log = LogFile(path, 1000, 2)
    log.append("one")
    log.append("two")
    assert path.read_text(encoding="utf-8") == "one\ntwo\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_file_that_others_could_read_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_text("old\n", encoding="utf-8")
    path.chmod(0o644)
    LogFile(path, 1000, 2).append("new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.requirement("logs:off")
def test_a_log_without_a_path_drops_everything(capsys: pytest.CaptureFixture[str]) -> None:
    LogFile(None, 1000, 2).append("one")
    assert capsys.readouterr().err == ""


@pytest.mark.requirement("logs:format:newline")
def test_one_append_is_one_line(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "x.log", 1000, 2)
    log.append("a\nb\rc\n")
    log.append("bad \ud800 text")
    assert (tmp_path / "x.log").read_text(encoding="utf-8") == "a\\nb\\rc\nbad \\ud800 text\n"


@pytest.mark.requirement("logs:rotate")
def test_rotation_comes_before_the_append_that_would_not_fit(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "x.log", 8, 2)
    log.append("123")
    log.append("456")
    assert not (tmp_path / "x.log.1").exists()
    log.append("7")
    assert (tmp_path / "x.log").read_text(encoding="utf-8") == "7\n"
    assert (tmp_path / "x.log.1").read_text(encoding="utf-8") == "123\n456\n"


def test_a_file_that_another_process_has_just_rotated_is_not_rotated_again(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    log = LogFile(path, 8, 2)
    log.append("full up")
    path.rename(tmp_path / "x.log.1")
    # The other one has shifted the files and not begun the new one, then has begun it.
    log._rotate(path, 4)
    assert sorted(os.listdir(tmp_path)) == [".x.log.lock", "x.log.1"]
    path.write_text("new\n", encoding="utf-8")
    log._rotate(path, 4)
    assert (tmp_path / "x.log.1").read_text(encoding="utf-8") == "full up\n"
    assert path.read_text(encoding="utf-8") == "new\n"


def test_a_writer_does_not_wait_for_one_that_rotates(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    log = LogFile(path, 8, 2)
    log.append("full up")
    with logs._try_lock(tmp_path / ".x.log.lock") as mine:
        assert mine
        log.append("more")
    assert path.read_text(encoding="utf-8") == "full up\nmore\n"
    log.append("next")
    assert (tmp_path / "x.log.1").read_text(encoding="utf-8") == "full up\nmore\n"


def test_a_line_longer_than_the_limit_still_goes_in(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "x.log", 4, 2)
    log.append("123456789")
    log.append("abcdefghi")
    assert (tmp_path / "x.log.1").read_text(encoding="utf-8") == "123456789\n"
    assert (tmp_path / "x.log").read_text(encoding="utf-8") == "abcdefghi\n"


@pytest.mark.requirement("logs:rotate")
@given(st.lists(st.integers(1, 12), max_size=40), st.integers(4, 40), st.integers(0, 4))
def test_rotation_keeps_the_newest_lines_in_order(
    lengths: list[int], max_bytes: int, keep: int
) -> None:
    with tempfile.TemporaryDirectory(prefix="iap") as name:
        folder = Path(name)
        log = LogFile(folder / "x.log", max_bytes, keep)
        written = [f"{number:03d}{'x' * length}" for number, length in enumerate(lengths)]
        for line in written:
            log.append(line)
        left = lines_of(folder)
        assert left == written[len(written) - len(left) :]
        files = [path for path in folder.iterdir() if path.name.startswith("x.log")]
        assert len(files) <= keep + 1
        longest = max(lengths, default=0) + 4
        assert all(path.stat().st_size <= max(max_bytes, longest) for path in files)
        if len(files) <= keep:
            assert left == written


def test_lines_of_several_processes_neither_mix_nor_get_lost(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from iapeer.storage.logs import LogFile\n"
        "log = LogFile(Path(sys.argv[1]), 4000, 100); sys.stdin.readline()\n"
        "for n in range(300): log.append(f'{sys.argv[2]} {n:04d} ' + 'x' * (n % 90))\n"
    )
    source = Path(logs.__file__).parents[2]
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "x.log"), str(writer)],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(source)},
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        for writer in range(4)
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    assert [writer.communicate(timeout=60)[1] for writer in writers] == [""] * 4
    found = lines_of(tmp_path)
    expected = {f"{w} {n:04d} " + "x" * (n % 90) for w in range(4) for n in range(300)}
    assert len(found) == len(expected)
    assert set(found) == expected
    for name in "0123":
        own = [line[2:6] for line in found if line.startswith(name)]
        assert own == sorted(own)


@pytest.mark.requirement("logs:swallow")
def test_an_unwritable_path_never_raises_and_is_reported_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    log = LogFile(tmp_path / "file" / "x.log", 1000, 2)
    log.append("one")
    log.append("two")
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert str(tmp_path / "file" / "x.log") in err


def test_a_full_disk_cuts_one_line_only(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from iapeer.storage.logs import LogFile\n"
        "log = LogFile(Path(sys.argv[1]), 10_000, 2)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10_000))\n"
        "log.append('first'); log.append('second')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "log.append('third')\n"
    )
    source = Path(logs.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.log")],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(source)},
        capture_output=True,
        encoding="utf-8",
        timeout=30,
        check=True,
    )
    assert (tmp_path / "x.log").read_text(encoding="utf-8") == "first\nseco\nthird\n"
    assert "only 4 of 7 bytes" in done.stderr


@pytest.mark.requirement("logs:delivery:keys")
def test_a_delivered_message_is_logged_in_the_contracts_order() -> None:
    line = delivery_record(
        NOON,
        Delivery(
            caller="claude-ann",
            to="bob",
            runtime="codex",
            ok=True,
            via="codex-bob",
            woke=True,
            elapsed_ms=12,
            length=340,
            attachments=2,
            topic="a b",
            error="not said",
            path="cli",
            message_id="abcdefghijkl",
            state="landed",
        ),
    )
    assert line == (
        "ts=2026-09-21T14:13:20.123Z ev=delivery path=cli caller=claude-ann to=bob rt=codex "
        'ok=true via=codex-bob woke=true ms=12 len=340 att=2 topic="a b" id=abcdefghijkl '
        "state=landed"
    )


@pytest.mark.requirement("logs:delivery:keys")
def test_a_queued_message_names_its_queue() -> None:
    line = delivery_record(
        NOON,
        Delivery(
            caller="claude-ann",
            to="bob",
            ok=True,
            via="claude-bob",
            queued=True,
            queue_kind="composer",
            queue_depth=3,
            elapsed_ms=1,
            length=5,
        ),
    )
    assert line.endswith(
        "to=bob ok=true via=claude-bob woke=false queued=true qkind=composer qd=3 ms=1 len=5"
    )


@pytest.mark.requirement("logs:delivery:keys")
def test_a_refused_message_has_its_error_and_neither_via_nor_woke() -> None:
    line = delivery_record(
        NOON,
        Delivery(
            caller="claude-ann",
            to="bob",
            ok=False,
            via="claude-bob",
            woke=True,
            queue_depth=3,
            elapsed_ms=1,
            length=5,
            error='peer "bob"\nis stopped',
        ),
    )
    assert line.endswith(
        'caller=claude-ann to=bob ok=false ms=1 len=5 err="peer \\"bob\\"\\nis stopped"'
    )


@pytest.mark.requirement("logs:format:time")
def test_a_lifecycle_record_has_time_and_event_first_and_drops_what_is_not_known() -> None:
    line = lifecycle_record(NOON, "wake", identity="claude-bob", cause=None, mode="fresh")
    assert line == "ts=2026-09-21T14:13:20.123Z ev=wake identity=claude-bob mode=fresh"
