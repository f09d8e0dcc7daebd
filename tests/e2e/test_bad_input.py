"""What a user or an agent gets wrong, on a real daemon: told in words, and nothing has changed."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from iapeer.storage.ledger.offline import offline_read
from iapeer.storage.paths import Paths, profile_path
from iapeer.testing.daemon import AskFailed, TestDaemon, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.real_tmux]

NOBODY = 65534
AS_OP = ("--from", "api-op")


class Said(NamedTuple):
    status: int
    out: str
    err: str


class Team(NamedTuple):
    """A running daemon: ann awake (with her session's token), bob asleep, op a program."""

    daemon: TestDaemon
    token: str


def say(daemon: TestDaemon, *words: str, **variables: str) -> Said:
    done = daemon.run(*words, expect=None, **variables)
    return Said(done.returncode, done.stdout, done.stderr)


def assert_refused(said: Said, *told: str, status: int = 1) -> None:
    """One sentence that names the thing, one that says what to do, and no traceback."""
    assert (said.status, said.out) == (status, ""), said
    assert said.err.startswith("iapeer"), said.err
    for part in told:
        assert part in said.err, said.err
    assert "Traceback" not in said.err
    assert "internal error" not in said.err
    advice = ("hint: ", "usage: ", "verbs: ")
    assert [line for line in said.err.splitlines()[1:] if line.startswith(advice)], said.err


def state_of(root: Path) -> dict[str, object]:
    """Every file below the root with mode and content, but logs; the ledger by its rows."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if name.startswith("logs/") or path.name.startswith("ledger.db"):
            continue
        info = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(info.st_mode) else b""
        if name.endswith(".lock") and not content:  # a lock nobody holds
            continue
        found[name] = (oct(info.st_mode), hashlib.sha256(content).hexdigest())
    ledger = Paths(root).ledger
    if ledger.exists():
        with offline_read(ledger) as conn:
            tables = conn.execute("SELECT name FROM sqlite_master WHERE type='table'").fetchall()
            for (table,) in tables:
                if table == "counters":  # of connections, not of messages
                    continue
                rows = conn.execute(f'SELECT * FROM "{table}"')  # noqa: S608 - our own names
                found[f"table {table}"] = sorted(repr(tuple(row)) for row in rows)
    return found


@contextmanager
def nothing_changes(root: Path) -> Iterator[None]:
    before = state_of(root)
    yield
    after = state_of(root)
    assert {k: v for k, v in after.items() if before.get(k) != v} == {}
    assert before.keys() == after.keys()


@pytest.fixture(scope="module")
def team() -> Iterator[Team]:
    daemon = TestDaemon.make()
    try:
        daemon.create("ann", "bob")
        daemon.create("op", runtime="api")
        daemon.start()
        daemon.wait_state(daemon.send("ann", "NOTHING", "api-op")["message_id"], "seen")
        wait_until(lambda: _is_read_to_its_end(daemon), reason="the end of ann's turn")
        yield Team(daemon, _token(daemon))
    finally:
        daemon.clean_up()


@pytest.fixture(scope="module")
def resting() -> Iterator[TestDaemon]:
    """A root whose daemon ran once and is down."""
    daemon = TestDaemon.make()
    try:
        daemon.create("kim")
        daemon.start()
        assert daemon.stop() == 0
        yield daemon
    finally:
        daemon.clean_up()


def _is_read_to_its_end(daemon: TestDaemon) -> bool:
    """Tell whether the ledger knows all that ann's session has written down."""
    kinds = [record["type"] for record in daemon.records("ann")]
    with offline_read(Paths(daemon.root).ledger) as conn:
        sessions = conn.execute("SELECT transcript, read_offset FROM sessions").fetchall()
        (open_turns,) = conn.execute("SELECT count(*) FROM turns WHERE turn_end = ''").fetchone()
    read = all(Path(file).stat().st_size == offset for file, offset in sessions)
    return kinds.count("turn") == 2 and read and not open_turns


def _token(daemon: TestDaemon) -> str:
    """Read a session's token where its own program has it."""
    for pid, _ in daemon.session_processes():
        for pair in Path(f"/proc/{pid}/environ").read_text(encoding="utf-8").split("\0"):
            if pair.startswith("PEER_TOKEN="):
                return pair.partition("=")[2]
    raise AssertionError("no session has a token")


# --- a message that can't be sent ---------------------------------------------------------------

TWENTY_ONE = tuple(word for n in range(21) for word in ("--attachment", f"/a{n}"))


@pytest.mark.requirement(
    "send:check:message",
    "send:check:topic",
    "send:check:attachments",
    "send:check:names",
    "send:refuse:unknown",
    "send:refuse:undeclared",
    "send:refuse:nothing-stored",
)
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("carol", "hi"), ('"carol" is not in the iapeer peers index; message NOT delivered',)),
        (("bob", "hi", "--runtime", "zzz"), ('runtime "zzz" is not declared for "bob"', "demo")),
        (("bob", "hi", "--runtime", "Z!"), ('invalid runtime "Z!"',)),
        (("Bob!", "hi"), ('invalid personality "Bob!"',)),
        (("demo_bob", "hi"), ('invalid personality "demo_bob"',)),
        (("bob", "x" * 16_001), ("message exceeds 16000 char limit (got 16001)",)),
        (("bob", "--message="), ('requires non-empty "personality" and "message"',)),
        (("bob", "hi", *TWENTY_ONE), ("attachments exceeds 20 item limit (got 21)",)),
        (("bob", "hi", "--attachment", "/a\nb"), ("must not contain newline", "/a b")),
        (("bob", "hi", "--topic", "t" * 201), ("topic exceeds 200 char limit (got 201)",)),
    ],
    ids=lambda value: value[0][:40],
)
def test_a_message_beyond_the_rules_is_refused(
    team: Team, words: tuple[str, ...], told: tuple[str, ...]
) -> None:
    with nothing_changes(team.daemon.root):
        said = say(team.daemon, "send", *words, *AS_OP)
    assert_refused(said, *told)


@pytest.mark.requirement("send:check:attachments")
def test_a_relative_attachment_is_refused_by_the_daemon(team: Team) -> None:
    # The command line makes its own relative paths absolute; other programs must.
    with nothing_changes(team.daemon.root), pytest.raises(AskFailed) as refused:
        team.daemon.send("bob", "hi", "api-op", attachments=["/fine", "notes/a.txt"])
    assert refused.value.status == 400
    assert 'absolute local paths (attachments[1] is "notes/a.txt")' in str(refused.value)
    assert refused.value.error["hint"]


@pytest.mark.requirement("cli:usage")
@pytest.mark.parametrize(
    "words",
    [
        ("send",),
        ("send", "bob", *AS_OP),
        ("send", "bob", "one", "--message", "two", *AS_OP),
        ("send", "bob", "hi", "--frm", "api-op"),
        ("send", "bob", "hi", *AS_OP, *AS_OP),
        ("stop",),
        ("stop", "bob", "--all"),
        ("create",),
        ("rename", "bob"),
        ("remove",),
        ("frobnicate",),
        (),
    ],
    ids=" ".join,
)
def test_a_line_that_can_not_be_understood_is_usage_and_status_2(
    team: Team, words: tuple[str, ...]
) -> None:
    with nothing_changes(team.daemon.root):
        said = say(team.daemon, *words)
    assert (said.status, said.out) == (2, "")
    assert "Traceback" not in said.err
    assert "usage: iapeer" in said.err or "verbs: send" in said.err


# --- peers that can't be made or changed --------------------------------------------------------


@pytest.mark.requirement("cli:errors", "cli:stop:unknown")
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("create", "42", "--runtime", "demo"), ("'42' gives no valid peer name",)),
        (("create", "①②③", "--runtime", "demo"), ("'①②③' gives no valid peer name",)),
        (
            ("create", "new", "--runtime", "zzz"),
            ("unknown runtime 'zzz'", "api, claude, codex, demo"),
        ),
        (("create", "new", "--runtime", "demo", "--intelligence", "clever"), ("clever", "natural")),
        (("stop", "carol"), ("peer 'carol' is not registered",)),
        (("start", "carol"), ("peer 'carol' is not registered",)),
        (("stop", "bob", "zzz"), ('runtime "zzz" is not declared for "bob"',)),
        (("rename", "carol", "new"), ("peer 'carol' is not registered",)),
        (("rename", "bob", "op"), ("peer 'op' already exists",)),
        (("rename", "bob", "B!"), ("invalid personality 'B!'",)),
        (("trace", "zzz"), ("'zzz' is no message id",)),
        (("trace", "a" * 12), (f"no message '{'a' * 12}'",)),
    ],
    ids=" ".join,
)
def test_a_peer_that_can_not_be_is_refused(
    team: Team, words: tuple[str, ...], told: tuple[str, ...]
) -> None:
    with nothing_changes(team.daemon.root):
        assert_refused(say(team.daemon, *words), *told)


@pytest.mark.requirement("profile:birth:name-taken")
def test_a_folder_or_a_name_already_taken_is_refused(team: Team) -> None:
    root, elsewhere = team.daemon.root, team.daemon.base / "elsewhere" / "bob"
    elsewhere.mkdir(parents=True)
    home = str(root / "peers" / "bob")
    with nothing_changes(root):
        init = say(team.daemon, "init", str(elsewhere), "--runtime", "demo")
        create = say(team.daemon, "create", "bob", "--runtime", "demo", "--path", str(elsewhere))
        other = say(team.daemon, "create", "carl", "--runtime", "demo", "--path", home)
    assert_refused(init, "peer 'bob' already exists in", home, "rename this folder")
    assert_refused(create, "peer 'bob' already exists in", home)
    assert_refused(other, home, "is not named after the peer 'carl'")
    assert list(elsewhere.iterdir()) == []
    shutil.rmtree(elsewhere.parent)


@pytest.mark.requirement("registry:create:occupied")
def test_a_folder_that_holds_another_peers_profile_is_refused(team: Team) -> None:
    folder = team.daemon.base / "copied"
    profile_path(folder).parent.mkdir(parents=True)
    shutil.copy(profile_path(team.daemon.root / "peers" / "bob"), profile_path(folder))
    with nothing_changes(team.daemon.root), nothing_changes(folder):
        path = ("--path", str(folder))
        said = say(team.daemon, "create", "copied", "--runtime", "demo", *path)
    assert_refused(said, f"{folder} already holds peer 'bob'", "use another folder")
    shutil.rmtree(folder)


def test_a_corrupt_profile_is_named_and_left_as_it_is(team: Team) -> None:
    daemon, home = team.daemon, team.daemon.root / "peers" / "bob"
    path = profile_path(home)
    good = path.read_bytes()
    path.write_bytes(b'{"personality": "bob", ')
    try:
        with nothing_changes(daemon.root):
            init = say(daemon, "init", str(home), "--runtime", "demo")
            create = say(daemon, "create", "bob", "--runtime", "demo")
            found = say(daemon, "verify")
            mended = say(daemon, "verify", "--fix")
    finally:
        path.write_bytes(good)
    for said in (init, create):
        assert_refused(said, f"{path} is not valid JSON", "repair the file or restore it")
    assert found.status == mended.status == 1
    assert f"✗ bob: root ({path} is not valid JSON" in found.out
    assert "Traceback" not in found.err + mended.err
    assert say(daemon, "verify").status == 0


# --- who is calling ------------------------------------------------------------------------------


@pytest.mark.requirement("caller:token")
def test_nobody_speaks_for_another_with_a_sessions_token(team: Team) -> None:
    with nothing_changes(team.daemon.root):
        said = say(team.daemon, "send", "bob", "hi", "--from", "demo-bob", PEER_TOKEN=team.token)
    assert_refused(said, "the session token belongs to demo-ann", "'demo-bob'")


@pytest.mark.requirement(
    "caller:request:bad-name",
    "caller:request:unknown",
    "caller:request:undeclared",
)
@pytest.mark.parametrize(
    ("sender", "told"),
    [
        ("demo-nobody", "unknown caller 'demo-nobody': peer 'nobody' is not registered"),
        ("claude-bob", "runtime 'claude' is not declared for caller 'bob'"),
        ("demo-Bob", "invalid caller personality 'Bob'"),
        ("garbage", "invalid --from identity 'garbage'"),
    ],
)
def test_a_sender_that_is_nobody_is_refused(team: Team, sender: str, told: str) -> None:
    with nothing_changes(team.daemon.root):
        said = say(team.daemon, "send", "bob", "hi", "--from", sender)
    assert_refused(said, told)


def test_a_wrong_token_is_refused_although_none_would_do(team: Team) -> None:
    with nothing_changes(team.daemon.root):
        said = say(team.daemon, "send", "bob", "hi", PEER_TOKEN="0" * 64)
        named = say(team.daemon, "send", "bob", "hi", *AS_OP, PEER_TOKEN="0" * 64)
    for refused in (said, named):
        assert_refused(refused, "unknown session token")
        assert "0" * 64 not in refused.err


def test_outside_of_any_peers_folder_a_sender_must_be_named(team: Team) -> None:
    with nothing_changes(team.daemon.root):
        said = say(team.daemon, "send", "bob", "hi")
    assert_refused(said, f"no peer lives in {team.daemon.base} or above", "--from <runtime>-<peer>")


class Answer(NamedTuple):
    status: int
    text: str


def over_tcp(daemon: TestDaemon, path: str, body: object, **headers: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=30)
    try:
        kinds = "application/json, text/event-stream"
        sent = {"Content-Type": "application/json", "Accept": kinds, **headers}
        connection.request("POST", path, json.dumps(body), sent)
        response = connection.getresponse()
        return Answer(response.status, response.read().decode())
    finally:
        connection.close()


def by_api(daemon: TestDaemon, sender: str = "", **headers: str) -> tuple[int, str]:
    body = {"to": "bob", "message": "hi", **({"from": sender} if sender else {})}
    answer = over_tcp(daemon, "/api/v1/send", body, **headers)
    error: dict[str, Any] = json.loads(answer.text)["error"]
    assert error["hint"]
    return answer.status, str(error["message"])


def by_mcp(daemon: TestDaemon, **headers: str) -> str:
    arguments = {"personality": "bob", "message": "hi"}
    params = {"name": "send_to_peer", "arguments": arguments}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    result = json.loads(over_tcp(daemon, "/mcp", call, **headers).text)["result"]
    assert result["isError"] is True
    (content,) = result["content"]
    return str(content["text"])


@pytest.mark.requirement("caller:request:missing", "caller:tcp")
def test_over_tcp_nobody_is_believed_without_a_token(team: Team) -> None:
    daemon, header = team.daemon, "X-IAPeer-Identity"
    with nothing_changes(daemon.root):
        silent = [by_api(daemon)[1], by_mcp(daemon)]
        named = [
            by_api(daemon, "api-op")[1],
            by_api(daemon, **{header: "api-op"})[1],
            by_mcp(daemon, **{header: "api-op"}),
        ]
        statuses = {by_api(daemon)[0], by_api(daemon, "api-op")[0]}
    assert all("missing or malformed x-iapeer-identity header" in text for text in silent)
    assert all("over TCP 'api-op' must be proven" in text for text in named)
    assert statuses == {403}


@pytest.mark.requirement("caller:token")
def test_over_tcp_a_header_that_disagrees_with_the_token_is_refused(team: Team) -> None:
    daemon = team.daemon
    forged = {"X-IAPeer-Token": team.token, "X-IAPeer-Identity": "demo-bob"}
    with nothing_changes(daemon.root):
        api, mcp = by_api(daemon, **forged), by_mcp(daemon, **forged)
        body = by_api(daemon, "demo-bob", **{"X-IAPeer-Token": team.token})
    for text in (api[1], body[1], mcp):
        assert "the session token belongs to demo-ann" in text
    assert (api[0], body[0]) == (403, 403)


def test_over_tcp_a_wrong_token_is_unauthorized(team: Team) -> None:
    wrong = {"X-IAPeer-Token": "0" * 64}
    with nothing_changes(team.daemon.root):
        api, mcp = by_api(team.daemon, **wrong), by_mcp(team.daemon, **wrong)
    assert api[0] == 401
    assert "unknown session token" in api[1]
    assert "unknown session token" in mcp


# --- folders that are gone -----------------------------------------------------------------------


@pytest.mark.requirement("send:refuse:folder")
def test_a_peer_whose_folder_is_gone_is_refused_and_found_again(team: Team) -> None:
    daemon = team.daemon
    home, aside = daemon.root / "peers" / "bob", daemon.base / "aside"
    home.rename(aside)
    try:
        with nothing_changes(daemon.root):
            sent = say(daemon, "send", "bob", "hi", *AS_OP)
            found = say(daemon, "verify")
            init = say(daemon, "init", str(home), "--runtime", "demo")
    finally:
        aside.rename(home)
    assert_refused(sent, f"peer cwd does not exist: {home}", "restore the folder", "remove bob")
    assert_refused(init, f"{home} is not a folder")
    assert found.status == 1
    assert "✗ bob: missing" in found.out
    assert str(home) in found.out


def _from_nowhere(daemon: TestDaemon, *words: str) -> Said:
    """Run the command in a folder that is removed before it starts."""
    gone = Path(tempfile.mkdtemp(prefix="gone", dir=daemon.base))
    shell = 'cd "$1" && rmdir "$1" && shift && exec "$@"'
    done = subprocess.run(
        ["/bin/sh", "-c", shell, "sh", gone, sys.executable, "-P", "-m", "iapeer", *words],
        env=daemon.environ,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    return Said(done.returncode, done.stdout, done.stderr)


def test_what_needs_no_folder_works_where_the_folder_is_gone(team: Team) -> None:
    for words in (("list",), ("status",), ("verify",), ("help",)):
        assert _from_nowhere(team.daemon, *words).status == 0


@pytest.mark.parametrize(
    "words",
    [
        ("init", "--runtime", "demo"),
        ("create", "new", "--runtime", "demo", "--path", "new"),
        ("send", "bob", "hi"),
        ("send", "bob", "hi", *AS_OP, "--attachment", "notes.txt"),
    ],
    ids=" ".join,
)
def test_a_folder_that_is_gone_is_told(team: Team, words: tuple[str, ...]) -> None:
    with nothing_changes(team.daemon.root):
        said = _from_nowhere(team.daemon, *words)
    assert_refused(said, "folder")


# --- an index that is damaged --------------------------------------------------------------------


def _damage_record(path: Path) -> None:
    raw = json.loads(path.read_text(encoding="utf-8"))
    (record,) = [peer for peer in raw["peers"] if peer["personality"] == "bob"]
    record["intelligence"] = "bogus"
    path.write_text(json.dumps(raw), encoding="utf-8")


def _damage_file(path: Path) -> None:
    path.write_text(path.read_text(encoding="utf-8")[:-20], encoding="utf-8")


@pytest.mark.requirement(
    "registry:read:no-registry",
    "registry:read:bad-record",
    "registry:fix:quarantine",
)
@pytest.mark.parametrize("damage", [_damage_record, _damage_file])
def test_a_corrupt_index_keeps_others_reachable_and_is_mended_on_demand(
    iapeer_daemon: TestDaemon, damage: Callable[[Path], None]
) -> None:
    daemon, index = iapeer_daemon, Paths(iapeer_daemon.root).registry
    daemon.create("ann", "bob")
    daemon.create("op", runtime="api")
    daemon.start()
    assert say(daemon, "list").status == 0  # a file that is all broken is read from memory
    damage(index)
    with nothing_changes(daemon.root):
        refused = [
            say(daemon, "create", "new", "--runtime", "demo"),
            say(daemon, "init", str(daemon.root / "peers" / "ann"), "--runtime", "demo"),
            say(daemon, "remove", "op"),
            say(daemon, "rename", "op", "opus"),
        ]
        found = say(daemon, "verify")
    for said in refused:
        assert_refused(said, "peers-profiles.json corrupted", "iapeer verify --fix")
    assert found.status == 1
    assert "peers-profiles.json corrupted" in found.out
    if damage is _damage_record:
        lost = say(daemon, "send", "bob", "hi", *AS_OP)
        assert_refused(lost, '"bob" is not in the iapeer peers index', "iapeer verify --fix")
    sent = say(daemon, "send", "ann", "NOTHING", *AS_OP)
    assert sent == (0, "delivered to ann (demo)\n", "")
    assert "problem: peers-profiles.json corrupted" in say(daemon, "status").out

    damaged = index.read_bytes()
    mended = say(daemon, "verify", "--fix")
    assert (mended.status, mended.err) == (0, "")
    (aside,) = Paths(daemon.root).quarantine.iterdir()
    assert str(aside) in mended.out
    assert aside.stat().st_mode & 0o777 == 0o600
    assert b"bob" in aside.read_bytes()
    assert index.read_bytes() != damaged
    names = [peer["personality"] for peer in json.loads(say(daemon, "list", "--json").out)]
    assert names == ["ann", "bob", "op"]
    assert say(daemon, "create", "new", "--runtime", "demo").status == 0
    assert say(daemon, "send", "bob", "NOTHING", *AS_OP).status == 0


# --- a daemon that can't start -------------------------------------------------------------------


@pytest.mark.requirement("daemon:second")
def test_a_second_daemon_on_a_root_is_refused_and_the_first_goes_on(team: Team) -> None:
    daemon = team.daemon
    assert daemon.process is not None
    with nothing_changes(daemon.root):
        same = say(daemon, "daemon")
        elsewhere = say(daemon, "daemon", "--port", "0")
    for said in (same, elsewhere):
        assert_refused(said, f"another daemon with pid {daemon.process.pid} owns this root")
    assert say(daemon, "status").status == 0


@pytest.mark.requirement("daemon:port-busy")
def test_a_busy_port_names_its_holder_and_another_is_taken_only_when_asked_for(
    team: Team, resting: TestDaemon
) -> None:
    busy = str(team.daemon.port)
    assert team.daemon.process is not None
    with nothing_changes(resting.root):
        said = say(resting, "daemon", IAPEER_PORT=busy)
    holder = f"port {busy} is taken by pid {team.daemon.process.pid}"
    assert_refused(said, holder, "--port N, or IAPEER_PORT")
    assert not Path(resting.socket).exists()

    resting.start(IAPEER_PORT="0")
    try:
        url = json.loads(Paths(resting.root).discovery.read_text(encoding="utf-8"))["tcp"]
        assert url.startswith("http://127.0.0.1:")
        assert f":{busy}/" not in url
    finally:
        assert resting.stop() == 0


def test_a_bad_port_is_refused(resting: TestDaemon) -> None:
    with nothing_changes(resting.root):
        flag = say(resting, "daemon", "--port", "99999")
        variable = say(resting, "daemon", IAPEER_PORT="http")
    assert_refused(flag, "--port='99999' is no port")
    assert_refused(variable, "IAPEER_PORT='http' is no port")


@pytest.mark.requirement("daemon:tmux")
def test_a_missing_tmux_is_named_with_the_way_to_get_it(resting: TestDaemon) -> None:
    empty = resting.base / "empty"
    empty.mkdir(exist_ok=True)
    with nothing_changes(resting.root):
        named = say(resting, "daemon", IAPEER_TMUX="/no/such/tmux")
        unfound = say(resting, "daemon", PATH=str(empty))
    assert_refused(named, "tmux not found: /no/such/tmux", "apt install tmux")
    assert_refused(unfound, "tmux not found: tmux", "apt install tmux")


@pytest.mark.requirement("daemon:tmux")
def test_a_tmux_that_is_too_old_is_named_with_its_version(resting: TestDaemon) -> None:
    old = resting.base / "old" / "tmux"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho tmux 2.9\n", encoding="utf-8")
    old.chmod(0o755)
    with nothing_changes(resting.root):
        named = say(resting, "daemon", IAPEER_TMUX=str(old))
        found = say(resting, "daemon", PATH=f"{old.parent}:{os.environ['PATH']}")
    for said in (named, found):
        assert_refused(said, "tmux 2.9 is too old, 3.2 or newer is needed", "apt install tmux")


def test_a_root_that_is_no_full_path_is_refused(resting: TestDaemon) -> None:
    for words in (("list",), ("daemon",), ("create", "new", "--runtime", "demo")):
        said = say(resting, *words, IAPEER_ROOT="relative")
        assert_refused(said, "IAPEER_ROOT=relative is not an absolute path")
    assert not (resting.base / "relative").exists()


# --- somebody else's root ------------------------------------------------------------------------

# The interpreter may stand where another account can't read: everything is imported before.
_AS_NOBODY = f"""
import importlib, os, pkgutil, sys
import difflib, filelock, tomllib
import iapeer.cli.main, iapeer.host.run
for found in pkgutil.iter_modules(iapeer.cli.__path__, "iapeer.cli."):
    importlib.import_module(found.name)
os.chdir("/")
os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
sys.exit(iapeer.cli.main.main(sys.argv[1:]))
"""


def _as_nobody(daemon: TestDaemon, *words: str, **variables: str) -> Said:
    done = subprocess.run(
        [sys.executable, "-P", "-c", _AS_NOBODY, *words],
        env={**daemon.environ, **variables},
        cwd=daemon.base,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    return Said(done.returncode, done.stdout, done.stderr)


@pytest.mark.requirement("storage:foreign-folder")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop to another uid")
@pytest.mark.parametrize("mode", [0o700, 0o755], ids=["closed", "readable"])
def test_a_root_of_another_account_is_refused_and_named(resting: TestDaemon, mode: int) -> None:
    root = resting.root
    resting.base.chmod(0o755)
    root.chmod(mode)
    try:
        with nothing_changes(root):
            told = {
                words: _as_nobody(resting, *words)
                for words in (
                    ("daemon",),
                    ("create", "new", "--runtime", "demo"),
                    ("remove", "kim"),
                    ("rename", "kim", "tim"),
                    ("verify", "--fix"),
                    ("send", "kim", "hi", "--from", "demo-kim"),
                )
            }
    finally:
        root.chmod(0o700)
        resting.base.chmod(0o700)
    for words, said in told.items():
        assert said.status == 1, (words, said)
        assert said.err.startswith(f"iapeer {words[0]}: "), (words, said)
        assert str(root) in said.err, (words, said)
        assert "hint: " in said.err, (words, said)
        assert "Traceback" not in said.err, (words, said)
        assert "internal error" not in said.err, (words, said)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop to another uid")
def test_a_root_that_can_not_be_written_is_named(resting: TestDaemon) -> None:
    root = resting.base / "sealed"
    root.mkdir()
    os.chown(root, NOBODY, NOBODY)
    root.chmod(0o500)
    resting.base.chmod(0o755)
    try:
        told = [
            _as_nobody(resting, *words, IAPEER_ROOT=str(root))
            for words in (("daemon",), ("create", "new", "--runtime", "demo"))
        ]
        assert list(root.iterdir()) == []
    finally:
        resting.base.chmod(0o700)
        root.rmdir()
    for said in told:
        assert_refused(said, str(root), "Permission denied", "check owner and mode")
