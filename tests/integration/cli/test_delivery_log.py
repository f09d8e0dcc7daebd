"""delivery.log: one line per attempt, from whichever entrance, and never a body."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from iapeer.storage.paths import Paths
from iapeer.testing.daemon import AskFailed, TestDaemon

pytestmark = pytest.mark.real_tmux


@pytest.mark.requirement("send:log:attempt", "logs:delivery:no-body", "logs:delivery:cli")
def test_every_attempt_leaves_one_line_and_no_body(iapeer_daemon: TestDaemon) -> None:
    daemon, body = iapeer_daemon, "NOTHING\nthe-secret-body"
    daemon.create("ann")
    daemon.create("op", "svc", runtime="api")
    daemon.start()
    to_ann = ("send", "ann", body, "--from", "api-op")
    daemon.run(*to_ann, "--topic", "the build", "--attachment", "/a", "--attachment", "/b")
    daemon.send("svc", body, "api-op", runtime="api")
    with pytest.raises(AskFailed):
        daemon.send("nobody", body, "api-op")
    daemon.run("send", "ann", body, "--from", "api-op", "--runtime", "zzz", expect=1)

    log = Paths(daemon.root).delivery_log.read_text(encoding="utf-8")
    assert "secret-body" not in log
    own = re.compile(r"^ts=\S+Z (.*)$")
    lines = [_fixed(m[1]) for line in log.splitlines() if (m := own.match(line))]
    waits = "ok=true via=api-svc woke=false queued=true"
    unknown = r"\"nobody\" is not in the iapeer peers index; message NOT delivered"
    undeclared = r"runtime \"zzz\" is not declared for \"ann\""
    who = "ev=delivery path=cli caller=api-op"
    at, told = f"ms=N len={len(body)}", "id=ID state="
    assert lines == [
        f'{who} to=ann ok=true via=demo-ann woke=true {at} att=2 topic="the build" {told}landed',
        f"ev=delivery caller=api-op to=svc rt=api {waits} qkind=offline qd=1 {at} {told}held",
        f'ev=delivery caller=api-op to=nobody ok=false {at} err="{unknown}"',
        f'{who} to=ann rt=zzz ok=false {at} err="{undeclared}"',
    ]


def _fixed(line: str) -> str:
    """Put fixed words for what differs from run to run."""
    line = re.sub(r"\bms=\d+", "ms=N", line)
    line = re.sub(r"\bid=[a-z2-7]{12}", "id=ID", line)
    return line.replace("state=seen", "state=landed")


@pytest.mark.requirement("daemon:log:calls")
def test_every_call_leaves_a_line_on_stderr_when_asked_for(
    iapeer_daemons: Callable[..., TestDaemon],
) -> None:
    daemon = iapeer_daemons(IAPEER_DAEMON_LOG="1")
    daemon.create("op", "svc", runtime="api")
    daemon.start()
    daemon.run("send", "svc", "the-secret-body", "--from", "api-op")
    daemon.run("send", "nobody", "the-secret-body", "--from", "api-op", expect=1)
    said = [line for line in daemon.errors().splitlines() if "POST /send" in line]
    assert ["ok=true" in line for line in said] == [True, False]
    assert all("sender=api-op" in line for line in said)
    assert "code=unknown_peer" in said[1]
    assert "secret-body" not in daemon.errors()


@pytest.mark.requirement("cli:send:offline", "logs:delivery:cli")
def test_a_send_without_a_daemon_is_accepted_delivered_later_and_logged_once(
    iapeer_daemon: TestDaemon,
) -> None:
    daemon = iapeer_daemon
    daemon.create("ann")
    daemon.create("op", runtime="api")
    sent = daemon.run("send", "ann", "NOTHING", "--from", "api-op", "--no-start", "--json")
    number = json.loads(sent.stdout)["message_id"]
    daemon.run("send", "nobody", "hi", "--from", "api-op", "--no-start", expect=1)
    daemon.start()
    daemon.wait_state(number, "seen")
    lines = Paths(daemon.root).delivery_log.read_text(encoding="utf-8").splitlines()
    assert [" path=cli " in line for line in lines] == [True, True]
    assert [number in line for line in lines] == [True, False]
    assert ["ok=true" in line for line in lines] == [True, False]
