from __future__ import annotations

import json
import re
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from benchmarks import report
from benchmarks.figures import spread
from benchmarks.machine import Machine
from benchmarks.rivals import (
    agent_mail,
    agent_relay,
    bun_send,
    eye,
    install,
    measure,
    page,
    relay_broker,
)
from benchmarks.rivals.__main__ import RIVALS, main
from benchmarks.rivals.notes import Notes
from benchmarks.rivals.ours import take_event
from benchmarks.rivals.readings import Burst, Column, NotRun, Reading
from benchmarks.wire import encode

MACHINE = Machine(
    cpu="c",
    cores=2,
    memory_gib=1,
    system="s",
    python="p",
    tmux="t",
    sqlite="q",
    fsync_ms=1,
    load=0,
    date="d",
)

RUN = page.Run(60, [0.5, 1.25])


def burst(arrived: int = 40, refused: int = 0, error: str = "", doubled: int = 0) -> Burst:
    return Burst(
        senders=16,
        sent=40 - refused,
        refused=refused,
        calls_s=2,
        arrived=arrived,
        doubled=doubled,
        arrived_s=4,
        error=error,
    )


def column(*bursts: Burst, reason: str = "", told: bool = True, delivers: bool = True) -> Column:
    return Column(
        name="n",
        version="1",
        entrance="e",
        recipient="r",
        promise="p",
        commands=("c",),
        told=told,
        delivers=delivers,
        reason=reason,
        readings=tuple(Reading(start_s=0.5, sent_s=(0.001, 0.003), many=one) for one in bursts),
    )


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


# -- tables ---------------------------------------------------------------------------------------


def test_what_is_lost_shows_in_the_round_that_lost_it() -> None:
    line = cells(page.many_table([column(burst(), burst(7), burst())]))[2]
    assert line == ["n", "16 senders, 40", "40", "0", "20", "40; 7; 40", "0", "10"]


def test_a_sender_that_is_told_nothing_has_no_rate_of_acceptance() -> None:
    line = cells(page.many_table([column(burst(7, doubled=3), told=False)]))[2]
    assert line[2:7] == ["not told", "not told", "-", "7", "3"]


def test_nothing_arrives_where_nobody_is_there() -> None:
    assert cells(page.many_table([column(burst(0), delivers=False)]))[2][5:] == ["-", "-", "-"]


def test_times_of_all_rounds_are_pooled_in_milliseconds() -> None:
    line = cells(page.one_table([column(burst(), burst())]))[2]
    assert line == ["n", "2.00 / 3.00", "-", "500 ms", "-"]


def test_a_system_that_was_not_run_says_why_and_has_no_line_of_figures() -> None:
    part = page.page_part(MACHINE, [column(reason="npm is missing")], [], RUN)
    assert "* n 1, not run: npm is missing." in part
    assert "| n | 1 | e | r | p |" in part
    assert part.count("| n |") == 1


def test_a_system_that_fails_in_a_later_round_keeps_what_it_had() -> None:
    part = page.page_part(MACHINE, [column(burst(), reason="it ended")], [], RUN)
    assert "* n 1, after the rounds above: it ended." in part
    assert "16 senders" in part


def test_foreign_words_stay_in_their_place_on_the_page() -> None:
    said = burst(error="a `b` | <script>\n" + "x" * 1000, refused=1)
    part = page.page_part(MACHINE, [column(said)], [], RUN)
    line = next(one for one in part.splitlines() if "told a sender" in one)
    assert line.startswith("* n 1 told a sender: `a 'b' / (script> xxx")
    assert len(line) < 350


def test_a_binary_that_could_not_be_made_is_a_line_too() -> None:
    starts = [
        bun_send.Start(what="a", spread=spread([1.0, 2.0]), mib=99.6),
        bun_send.Start(what="b", reason="npm is missing"),
    ]
    assert cells(page.starts_table(starts))[2:] == [
        ["a", "1.50 / 2.00", "100 MiB"],
        ["b", "not run: npm is missing", "-"],
    ]


def test_the_page_has_the_markers_its_tables_are_written_between() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert text.index(report.BEGIN) < text.index(report.END)


def test_every_system_of_the_page_names_the_command_that_starts_it() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    for rival in RIVALS:
        for command in rival.commands:
            assert command in text


def test_the_load_of_the_machine_stands_on_the_page() -> None:
    part = page.page_part(MACHINE, [], [], RUN)
    assert "in 60 s" in part
    assert "load average before the run 0.0, and at the end of each part 0.5, 1.2," in part


# -- versions -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "package", "version"),
    [
        ("agent-relay", "agent-relay", agent_relay.VERSION),
        ("agent-relay-broker", "@agent-relay/broker-linux-x64", relay_broker.VERSION),
        ("bun", "bun", bun_send.VERSION),
    ],
)
def test_what_comes_from_npm_is_pinned_with_hashes_and_no_address(
    folder: str, package: str, version: str
) -> None:
    lock = json.loads((install.PINS / folder / "package-lock.json").read_text(encoding="utf-8"))
    wanted = json.loads((install.PINS / folder / "package.json").read_text(encoding="utf-8"))
    packages = {name: one for name, one in lock["packages"].items() if name}
    assert wanted["dependencies"] == {package: version}
    assert packages[f"node_modules/{package}"]["version"] == version
    # A package that lies inside another's tarball is covered by that one's hash.
    fetched = [one for one in packages.values() if not one.get("inBundle")]
    assert all(one["integrity"].startswith("sha512-") for one in fetched)
    assert not [name for name, one in packages.items() if "resolved" in one]


def test_what_comes_from_pip_is_pinned_to_the_last_package() -> None:
    lines = (install.PINS / "mcp-agent-mail.txt").read_text(encoding="utf-8").splitlines()
    assert all(re.fullmatch(r"[\w.-]+==[\w.+!-]+", line) for line in lines)
    assert f"mcp-agent-mail=={agent_mail.VERSION}" in lines


def test_an_install_is_made_again_when_its_pins_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pins = tmp_path / "pins"
    pins.mkdir()
    (pins / "x.txt").write_text("a==1\n", encoding="utf-8")
    monkeypatch.setattr(install, "PINS", pins)
    monkeypatch.setattr(install, "CACHE", tmp_path / "cache")
    runs: list[str] = []
    monkeypatch.setattr(install, "_run", lambda *call: runs.append(call[2]))
    for _ in range(2):
        install.from_pip("x")
    assert runs == ["x", "x"], "an environment and its packages, once"
    (pins / "x.txt").write_text("a==2\n", encoding="utf-8")
    install.from_pip("x")
    assert len(runs) == 4


def test_a_missing_npm_is_a_reason_and_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NotRun, match="missing"):
        install.from_npm("bun")


def test_a_partial_run_does_not_write_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--write", "--quick"])
    assert "full run" in capsys.readouterr().err


# -- what comes in --------------------------------------------------------------------------------


def test_a_message_is_taken_out_of_a_chunked_stream_however_it_is_cut() -> None:
    stream = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"10\r\nevent: ping\r\ndata: {}\r\n\r\n\r\n"
        b'40\r\nid: i\r\nevent: message\r\ndata: {"id":"i","body":"a\\r\\n\\r\\nb"}\r\n\r\n\r\n'
    )
    for cut in range(len(stream)):
        data = bytearray(stream[:cut])
        found = [take_event(data)]
        data += stream[cut:]
        found.append(take_event(data))
        assert [one for one in found if one] == [{"id": "i", "body": "a\r\n\r\nb"}]


def test_the_marks_of_an_inbox_are_counted_once_for_each_message() -> None:
    items = [{"body_md": measure.body_of("b16-3-7")}, {"body_md": "none"}, {}]
    answer = {"result": {"isError": False, "structuredContent": {"result": items}}}
    assert agent_mail.marks_in(json.dumps(answer).encode()) == ["b16-3-7"]
    with pytest.raises(NotRun):
        agent_mail.marks_in(b'{"error": {"code": 1}}')


def test_a_body_has_its_size_and_a_mark_that_both_readers_find() -> None:
    body = measure.body_of("s-1")
    assert len(body) == measure.BODY_CHARS == 1024
    assert eye.MARK.findall(body.encode()) == [b"s-1"]
    assert measure.MARK.findall(body) == ["s-1"]


def test_notes_tell_what_came_twice(tmp_path: Path) -> None:
    notes = Notes(tmp_path / "notes")
    assert notes.read() == []
    now = time.time()
    lines = [f"{mark} {now}\n" for mark in ("a", "b", "a", "other")]
    (tmp_path / "notes").write_text("".join(lines) + "cut", encoding="ascii")
    calls = measure.Calls(sent=3)
    found = notes.burst(calls, 1, {"a", "b", "c"}, time.perf_counter() - 1)
    assert (found.arrived, found.doubled) == (2, 1)
    # The mark came when the notes were written: a second after the burst began, as it was told.
    assert 0.9 < found.arrived_s < 60


def test_troubles_of_a_log_are_counted() -> None:
    log = "x Write queue full for bob, dropping\nRetry failed for a\nWrite queue full for bob\n"
    assert agent_relay.complaints(log) == "1 x 'Retry failed', 2 x 'Write queue full'"
    assert agent_relay.complaints("[INFO] fine") == ""


# -- senders --------------------------------------------------------------------------------------


@contextmanager
def server(answer: Callable[[bytes], bytes]) -> Iterator[str]:
    """Answer every request of every connection."""
    path = tempfile.mkdtemp(prefix="iapr", dir="/tmp") + "/s"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()

    def serve(sock: socket.socket) -> None:
        with sock:
            while data := sock.recv(1 << 16):
                reply = answer(data)
                if not reply:
                    return
                sock.sendall(reply)

    def accept() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(sock,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield path
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)
        shutil.rmtree(Path(path).parent)


def _ok(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


def test_a_closed_loop_tells_yes_from_no_from_a_refusal() -> None:
    def answer(data: bytes) -> bytes:
        if b"/bad" in data:
            return b"HTTP/1.1 409 Conflict\r\ncontent-length: 4\r\n\r\nnope"
        return _ok(b"no" if b"/no" in data else b"yes")

    requests = [[encode("/yes")] * 3, [encode("/no"), encode("/bad"), encode("/yes")]]
    with server(answer) as path:
        calls = measure.closed_loop(path, requests, lambda body: body == b"yes")
    assert (calls.sent, calls.refused) == (4, 2)
    assert calls.error == "no"
    assert calls.seconds > 0


def test_a_closed_loop_ends_when_the_other_side_goes() -> None:
    with server(lambda _: b"") as path:
        calls = measure.closed_loop(path, [[encode("/a")] * 3], lambda _: True)
    assert calls.sent == 0
    assert calls.refused >= 1


def test_nothing_new_is_sent_when_the_time_is_over() -> None:
    with server(lambda _: _ok(b"yes")) as path:
        calls = measure.closed_loop(path, [[encode("/a")] * 9] * 2, lambda _: True, limit_s=0)
    assert (calls.sent, calls.refused) == (2, 0)


def test_waiting_ends_early_when_all_have_arrived_and_soon_when_none_comes() -> None:
    began = time.perf_counter()
    measure.until_quiet(lambda: 3, 3, quiet_s=60)
    assert time.perf_counter() - began < 5
    last = measure.until_quiet(lambda: 1, 3, quiet_s=0.1)
    assert last <= time.perf_counter() - 0.1


# -- processes ------------------------------------------------------------------------------------


def test_a_server_and_what_it_started_are_gone_afterwards(tmp_path: Path) -> None:
    script = "sleep 60 & echo $! > child; echo ready; trap '' TERM; wait"
    with measure.running(["sh", "-c", script], {"PATH": "/usr/bin:/bin"}, tmp_path) as found:
        found.answer_time(lambda: "ready" in found.last_words(), 10)
        child = int((tmp_path / "child").read_text(encoding="ascii"))
        assert psutil.pid_exists(child)
        assert found.memory()[0] > 0
        found.process.kill()
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == "zombie"


def test_a_server_that_ends_at_once_is_quoted(tmp_path: Path) -> None:
    argv = ["sh", "-c", "echo no cloud; exit 3"]
    with (
        measure.running(argv, {"PATH": "/usr/bin:/bin"}, tmp_path) as found,
        pytest.raises(NotRun, match="ended with 3: no cloud"),
    ):
        found.answer_time(lambda: False, 10)


def test_a_rival_gets_a_home_of_its_own_and_no_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_KEY", "x")
    environ = measure.clean_environ(tmp_path, MORE="1")
    assert environ["HOME"] == str(tmp_path / "home")
    assert "SECRET_KEY" not in environ
    assert environ["HTTPS_PROXY"].endswith("127.0.0.1:9")
    assert environ["MORE"] == "1"
