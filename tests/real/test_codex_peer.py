"""Codex as a peer, with the real program: asleep, woken, talked to, killed, resumed, refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
import tomllib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from iapeer.sessions.process import is_alive
from iapeer.storage.paths import Paths, peer_state_dir
from iapeer.testing.agents import AgentDaemon, SimulatedModel
from iapeer.testing.daemon import wait_until
from iapeer.testing.leaks import processes_of
from iapeer.testing.model_server import Call, Fail, Rule, Say, Script
from tests.real.crew import (
    CALL,
    NASTY,
    SLOWLY,
    Crew,
    body_of,
    cmdline,
    environment_of,
    files_with,
    gate,
    kill,
    newest,
)


@pytest.fixture
def rules(tmp_path: Path) -> Script | Iterable[Rule]:
    return (
        CALL,
        SLOWLY,
        Rule("WAITING", (Call("exec_command", gate(tmp_path / "go")), Say("done"))),
        Rule("USED UP", (Fail(status=429, resets_in_s=4, times=1), Say("after the reset"))),
        Rule("TOO FAST", (Fail(status=429, retry_after=1, times=1), Say("after the limit"))),
        Rule("LOCKED OUT", (Fail(status=401),)),
    )


@pytest.fixture
def crew(real_daemon: AgentDaemon, model: SimulatedModel) -> Iterator[Crew]:
    real_daemon.create("cody", runtime="codex")
    real_daemon.create("me", runtime="api")
    made = Crew(real_daemon, model)
    yield made
    made.end()


@pytest.fixture
def go(tmp_path: Path) -> Path:
    """The tool call of `WAITING` ends when this file is made."""
    return tmp_path / "go"


def test_a_sleeping_codex_is_woken_and_its_model_reads_exactly_our_text(crew: Crew) -> None:
    crew.daemon.start()
    body = (NASTY * 200)[:16_000].rstrip()
    sent = crew.send("cody", body, topic="nasty <b> & 日本")
    crew.wait(sent)
    asked = crew.wait_asked("/help is no command")
    assert newest(asked) == crew.text_of(sent)
    # What was sent before it: nothing but notes of the program itself.
    assert len(asked.user_texts) == 1
    assert any("send_to_peer" in text for text in asked.system_texts), asked.system_texts
    crew.wait_ends(sent, "done")
    assert crew.wakes("cody") == [("fresh", "first-wake")]
    assert crew.session("cody").native_id


def test_identity_and_token_come_from_the_environment_and_stand_nowhere_else(crew: Crew) -> None:
    crew.daemon.start(IAPEER_DAEMON_LOG="1")
    sent = crew.send("cody", 'CALL send_to_peer {"personality":"me","message":"proof"}')
    crew.wait_ends(sent, "done")
    server = crew.own_server(crew.session("cody"))
    environ = environment_of(server)
    assert environ["PEER_IDENTITY"] == "codex-cody"
    token = environ["PEER_TOKEN"]
    assert len(token) >= 32
    assert "sender=codex-cody proof=token" in crew.daemon.errors()
    words = [word for process in processes_of(crew.home) for word in cmdline(process)]
    assert any("app-server" in word for word in words)
    assert not [word for word in words if token in word]
    assert not files_with(token, crew.home, crew.daemon.base)


def test_the_composed_system_prompt_is_in_the_request(crew: Crew) -> None:
    doctrine = Paths(crew.daemon.root).peer_home("cody") / ".iapeer" / "IAPEER.md"
    doctrine.write_text("Always say please to the kraken.\n", encoding="utf-8")
    crew.daemon.start()
    crew.wait(crew.send("cody", "hello"))
    asked = crew.wait_asked("hello")
    texts = "\n".join(asked.system_texts)
    assert "kraken" in texts
    assert "cody" in texts


def test_a_message_in_a_streaming_turn_waits_for_its_end(crew: Crew) -> None:
    crew.daemon.start()
    first = crew.send("cody", "SLOWLY")
    crew.wait(first)
    second = crew.send("cody", "and then")
    crew.wait(second)
    crew.wait_ends(second, "done")
    assert crew.ends(first) == ["done"]
    ask = crew.wait_asked("and then").ask
    assert ask is not None
    assert any("one word after the other" in text for text in ask.texts("assistant"))


def test_messages_in_a_tool_call_become_turns_of_their_own_in_order(crew: Crew, go: Path) -> None:
    crew.daemon.start()
    first = crew.send("cody", "WAITING")
    crew.wait(first)
    crew.wait_asked("WAITING")
    later = [crew.send("cody", f"number {number}") for number in range(3)]
    for sent in later:
        crew.wait(sent, "landed")
    assert crew.ends(first) == [""]
    go.touch()
    for sent in later:
        crew.wait_ends(sent, "done")
    assert crew.ends(first) == ["done"]
    assert [body_of(newest(r)) for r in crew.asked("number ")] == [f"number {n}" for n in range(3)]


def test_messages_that_come_while_it_boots_arrive_once_and_in_order(crew: Crew) -> None:
    crew.daemon.start()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(crew.send, "cody", "number 0")
        wait_until(lambda: crew.sessions("cody"), reason="a boot")
        later = [crew.send("cody", f"number {number}") for number in range(1, 4)]
        sent = [first.result(), *later]
    for one in sent:
        crew.wait_ends(one, "done")
    assert [body_of(newest(r)) for r in crew.asked("number ")] == [f"number {n}" for n in range(4)]
    assert len(crew.sessions("cody")) == 1


def test_a_persons_draft_stays_untouched_and_the_message_arrives(crew: Crew) -> None:
    crew.daemon.start()
    crew.wait_ends(crew.send("cody", "hello"), "done")
    row = crew.session("cody")
    crew.type(row, "half a thought")
    sent = crew.send("cody", "is read at once")
    crew.wait_ends(sent, "done")
    wait_until(lambda: "half a thought" in crew.screen(row).split("›")[-1], reason="the draft")
    crew.key(row, "Enter")
    wait_until(lambda: any(newest(r) == "half a thought" for r in crew.model.requests))


def test_a_stopped_codex_goes_on_with_the_topic_it_was_about(crew: Crew, tmp_path: Path) -> None:
    crew.daemon.start()
    crew.wait_ends(crew.send("cody", "the first thing", topic="lighthouse"), "done")
    before = crew.session("cody").native_id
    crew.daemon.run("stop", "cody")
    crew.daemon.run("start", "cody")
    crew.wait(crew.send("cody", "the second thing", topic="lighthouse"))
    texts = [body_of(text) for text in crew.wait_asked("the second thing").user_texts]
    assert texts == ["the first thing", "the second thing"]
    assert crew.session("cody").native_id == before
    # A conversation that is gone on with may do what it could before.
    sent = crew.send("cody", f'CALL exec_command {{"cmd":"echo made > {tmp_path}/outside"}}')
    crew.wait_ends(sent, "done")
    assert (tmp_path / "outside").exists()
    crew.daemon.run("stop", "cody")
    crew.daemon.run("start", "cody")
    crew.wait(crew.send("cody", "the third thing", topic="submarine"))
    texts = [body_of(text) for text in crew.wait_asked("the third thing").user_texts]
    assert texts == ["the third thing"]
    assert crew.wakes("cody") == [
        ("fresh", "first-wake"),
        ("resume", "idle-reaped-resume"),
        ("fresh", "idle-reaped-new-topic"),
    ]


def test_a_conversation_that_is_gone_is_begun_anew_and_the_log_says_so(crew: Crew) -> None:
    crew.daemon.start()
    crew.wait_ends(crew.send("cody", "the first thing", topic="lighthouse"), "done")
    crew.daemon.run("stop", "cody")
    for path in (crew.home / ".codex" / "sessions").rglob("*.jsonl"):
        path.unlink()
    crew.daemon.run("start", "cody")
    sent = crew.send("cody", "the second thing", topic="lighthouse")
    crew.wait(sent)
    assert newest(crew.wait_asked("the second thing")) == crew.text_of(sent)
    assert crew.wakes("cody")[1:] == [
        ("resume", "idle-reaped-resume"),
        ("fail", ""),
        ("fresh", "idle-reaped-no-resume"),
    ]


def test_a_killed_app_server_loses_nothing_of_its_queue_and_repeats_nothing(
    crew: Crew, go: Path
) -> None:
    crew.daemon.start()
    crew.wait_ends(crew.send("cody", "hello"), "done")
    first = crew.send("cody", "WAITING")
    crew.wait(first)
    crew.wait_asked("WAITING")
    second = crew.send("cody", "the queued one")
    crew.wait(second, "landed")
    server = crew.own_server(crew.session("cody"))
    kill(server)
    wait_until(lambda: not server.is_running(), reason="its end")
    go.touch()
    crew.wait_ends(second, "done")
    crew.wait_ends(first, "died", "done")
    assert crew.wakes("cody") == [("fresh", "first-wake"), ("resume", "queue-survived")]
    assert len(crew.asked("the queued one")) == 1
    assert [("dup=" in newest(r)) for r in crew.asked("WAITING")] == [False, True]
    assert not os.path.lexists(crew.sessions("cody")[0].endpoint)


def test_a_killed_terminal_is_a_death_and_the_unanswered_message_comes_again_marked(
    crew: Crew, go: Path
) -> None:
    crew.daemon.start()
    sent = crew.send("cody", "WAITING")
    crew.wait(sent)
    crew.wait_asked("WAITING")
    row = crew.session("cody")
    assert row.pane_pid
    server = crew.own_server(row)
    os.kill(row.pane_pid, signal.SIGKILL)
    wait_until(lambda: not server.is_running(), reason="the end of its server")
    go.touch()
    crew.wait_ends(sent, "died", "done")
    assert [("dup=" in newest(r)) for r in crew.asked("WAITING")] == [False, True]


def test_a_turn_that_codex_ends_on_its_way_out_counts_and_is_not_repeated(
    crew: Crew, go: Path
) -> None:
    crew.daemon.start()
    sent = crew.send("cody", "WAITING")
    crew.wait(sent)
    crew.wait_asked("WAITING")
    row = crew.session("cody")
    assert row.pane_pid
    go.touch()
    # Hung up, the server ends the turn that runs before it ends itself.
    os.kill(row.pane_pid, signal.SIGKILL)
    crew.wait(crew.send("cody", "the next one"))
    crew.wait(sent)
    assert len(crew.asked("WAITING")) == 1 or "dup=" in newest(crew.asked("WAITING")[1])


def test_a_killed_tmux_server_takes_both_programs_along_and_the_message_comes_again(
    crew: Crew, go: Path
) -> None:
    crew.daemon.start()
    sent = crew.send("cody", "WAITING")
    crew.wait(sent)
    crew.wait_asked("WAITING")
    row = crew.session("cody")
    server = crew.own_server(row)
    assert row.server_pid
    os.kill(row.server_pid, signal.SIGKILL)
    wait_until(lambda: not server.is_running(), reason="the end of its server")
    go.touch()
    crew.wait_ends(sent, "died", "done")
    assert row.pane_pid
    assert not is_alive(row.pane_pid, int(row.pane_start or 0))
    assert [("dup=" in newest(r)) for r in crew.asked("WAITING")] == [False, True]


def test_a_daemon_killed_in_mid_turn_adopts_the_session_and_repeats_nothing(
    crew: Crew, go: Path
) -> None:
    crew.daemon.start()
    first = crew.send("cody", "WAITING")
    crew.wait(first)
    crew.wait_asked("WAITING")
    second = crew.send("cody", "the queued one")
    crew.wait(second, "landed")
    crew.daemon.kill()
    crew.daemon.start()
    third = crew.send("cody", "after the restart")
    crew.wait(third, "landed")
    go.touch()
    for sent in (first, second, third):
        crew.wait(sent)
        crew.wait_ends(sent, "done")
    assert crew.log("adopt ")
    assert len(crew.sessions("cody")) == 1
    for words in ("WAITING", "the queued one", "after the restart"):
        assert len(crew.asked(words)) == 1, words


def test_turns_that_end_while_no_daemon_runs_are_known_afterwards(crew: Crew, go: Path) -> None:
    crew.daemon.start()
    first = crew.send("cody", "WAITING")
    crew.wait(first)
    crew.wait_asked("WAITING")
    second = crew.send("cody", "the queued one")
    crew.wait(second, "landed")
    crew.daemon.kill()
    go.touch()
    crew.wait_asked("the queued one")
    crew.daemon.start()
    for sent in (first, second):
        crew.wait(sent)
        crew.wait_ends(sent, "done")
    assert len(crew.asked("the queued one")) == 1


def test_a_used_up_quota_holds_new_messages_until_the_reset_and_repeats_nothing(
    crew: Crew,
) -> None:
    crew.daemon.start()
    first = crew.send("cody", "USED UP")
    crew.wait_ends(first, "api_error")
    failed_at = time.time()
    second = crew.send("cody", "the next one")
    crew.wait(second, "held")
    assert crew.stored(second).reason == "quota"
    # Where the channel came after the notice of the window, all it has is the words: whole minutes.
    crew.wait(second, timeout_s=90)
    assert 1 < time.time() - failed_at < 75
    crew.wait_ends(second, "done")
    assert len(crew.asked("USED UP")) == 1
    assert not crew.asked("dup=")


def test_a_rejected_login_is_an_api_error_and_the_message_is_not_repeated(crew: Crew) -> None:
    (crew.daemon.root / "iapeer.toml").write_text("api_error_hold_s = 2\n", encoding="utf-8")
    crew.daemon.start()
    first = crew.send("cody", "LOCKED OUT")
    crew.wait_ends(first, "api_error")
    wait_until(lambda: "category=authentication_failed" in crew.log("api-error"))
    second = crew.send("cody", "the next one")
    crew.wait(second, "held")
    assert crew.stored(second).reason == "api_error"
    crew.wait_ends(second, "done")
    assert not crew.asked("dup=")


def test_a_plain_429_is_waited_out_by_codex_itself(crew: Crew) -> None:
    crew.daemon.start()
    sent = crew.send("cody", "TOO FAST")
    crew.wait_ends(sent, "done")
    assert not crew.log("api-error")


def test_after_stop_all_and_the_daemons_stop_nothing_of_ours_is_left(crew: Crew) -> None:
    crew.daemon.create("cora", runtime="codex")
    crew.daemon.start()
    sent = [crew.send(name, "hello") for name in ("cody", "cora")]
    for one in sent:
        crew.wait(one)
    crew.daemon.run("stop", "--all")
    crew.daemon.stop()
    assert [cmdline(process) for process in processes_of(crew.home)] == []
    left = [path.name for path in (crew.daemon.root / "socks").iterdir()]
    assert not [name for name in left if name.endswith(".sock")], left


def test_a_home_of_its_own_leaves_the_persons_alone_and_keeps_what_stands_in_it(
    crew: Crew,
) -> None:
    persons = crew.home / ".codex"
    (crew.daemon.root / "iapeer.toml").write_text('agent_config = "isolated"\n', encoding="utf-8")
    own = peer_state_dir(Paths(crew.daemon.root).peer_home("cody"), "codex") / "home" / ".codex"
    own.mkdir(parents=True)
    shutil.copy(persons / "config.toml", own)
    crew.daemon.start()
    crew.wait_ends(crew.send("cody", "hello", topic="lighthouse"), "done")
    crew.daemon.run("stop", "cody")
    crew.daemon.run("start", "cody")
    crew.wait_ends(crew.send("cody", "hello again", topic="lighthouse"), "done")
    assert [body_of(text) for text in crew.wait_asked("hello again").user_texts] == [
        "hello",
        "hello again",
    ]
    assert [path.name for path in persons.iterdir()] == ["config.toml"]
    assert (own / "sessions").is_dir()
    kept = tomllib.loads((own / "config.toml").read_text(encoding="utf-8"))
    assert kept["model_provider"] == "simulator"


def test_options_of_a_peer_reach_its_conversation_and_its_own_server(crew: Crew) -> None:
    provider = f'{{name="other",base_url="{crew.model.url}/v1",env_key="SIMULATOR_API_KEY"}}'
    values = [
        "model=another-model",
        "model_reasoning_effort=low",
        f"model_providers.other={provider}",
        "model_provider=other",
    ]
    options = [word for value in values for word in ("-c", value)]
    crew.daemon.set_variables("cody", "codex", start_args=options)
    crew.daemon.start()
    for number in range(2):
        # The second time in a session that goes on with the first one's conversation.
        crew.wait_ends(crew.send("cody", f"hello {number}", topic="lighthouse"), "done")
        asked = json.loads(crew.wait_asked(f"hello {number}").body)
        assert (asked["model"], asked["reasoning"]["effort"]) == ("another-model", "low")
        crew.daemon.run("stop", "cody")
        crew.daemon.run("start", "cody")
    assert crew.wakes("cody")[1] == ("resume", "idle-reaped-resume")


def test_a_codex_that_nobody_has_logged_in_is_a_failed_boot_that_says_so(crew: Crew) -> None:
    (crew.home / ".codex" / "config.toml").write_text("", encoding="utf-8")
    (crew.daemon.root / "iapeer.toml").write_text("wait_waking_s = 0.5\n", encoding="utf-8")
    crew.daemon.start()
    sent = crew.send("cody", "hello")
    wait_until(lambda: ("fail", "") in crew.wakes("cody"), reason="a failed boot")
    assert "OpenAI API key" in crew.log("wake ")
    assert crew.stored(sent).state == "held"


def test_escape_of_a_person_ends_the_turn_and_what_waits_still_arrives(
    crew: Crew, go: Path
) -> None:
    crew.daemon.start()
    first = crew.send("cody", "WAITING")
    crew.wait(first)
    crew.wait_asked("WAITING")
    second = crew.send("cody", "the queued one")
    crew.wait(second, "landed")
    row = crew.session("cody")
    # In a terminal that does not know of the turn yet the key means nothing.
    wait_until(lambda: "esc to interrupt" in crew.screen(row), reason="the turn to be shown")
    crew.key(row, "Escape")
    crew.wait_ends(first, "interrupted")
    third = crew.send("cody", "a later one")
    for sent in (second, third):
        crew.wait_ends(sent, "done")
    assert len(crew.asked("the queued one")) == len(crew.asked("a later one")) == 1


def test_a_person_begins_anew_and_the_messages_follow_there(crew: Crew) -> None:
    crew.daemon.start()
    crew.wait_ends(crew.send("cody", "the first thing"), "done")
    row = crew.session("cody")
    # The terminal hears of the end of a turn later than we do, and refuses `/new` till then.
    wait_until(lambda: "Worked for" in crew.screen(row), reason="the end of the turn there")
    crew.type(row, "/new")
    wait_until(lambda: crew.screen(row).count("/new") > 1, reason="the command to be offered")
    crew.key(row, "Enter")
    wait_until(lambda: "the first thing" not in crew.screen(row), reason="a new conversation")
    crew.wait_ends(crew.send("cody", "the second thing"), "done")
    texts = [body_of(text) for text in crew.asked("the second thing")[0].user_texts]
    assert texts == ["the second thing"]
    wait_until(lambda: crew.session("cody").native_id != row.native_id, reason="its name")


def test_a_tool_runs_without_anybody_being_asked(crew: Crew, tmp_path: Path) -> None:
    made = tmp_path / "outside"
    crew.daemon.start()
    sent = crew.send("cody", f'CALL exec_command {{"cmd":"echo made > {made}"}}')
    crew.wait_ends(sent, "done")
    assert made.read_text(encoding="utf-8") == "made\n"
