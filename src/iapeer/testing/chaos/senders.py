"""Those who send: over the unix socket, by the command line, and by MCP as a live agent."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import httpx2
import psutil

from iapeer.client import hot
from iapeer.core import env

from .bodies import body_of
from .fleet import Fleet
from .history import Call, History, Outcome

NUMBERS_EACH = 1_000_000
"""Each sender's numbers begin at its place times this."""
MCP_S = 40.0
UP_S = 5.0
CROWDED = 40
"""A recipient with more undelivered messages is given time."""


@dataclass(frozen=True)
class Answer:
    """What came of one attempt to send."""

    outcome: Outcome
    message_id: str = ""
    state: str = ""
    code: str = ""
    depth: int = 0


class Pace:
    """Lets senders go on as far as the plan has come, and counts what was answered ok."""

    def __init__(self, messages: int) -> None:
        self.messages = messages
        self.sent = 0
        self.accepted = 0
        self.done = threading.Event()
        self._allowed = 0
        self._lock = threading.Lock()

    def allow(self, total: int) -> None:
        """Let `total` messages be sent in all; never fewer than before."""
        with self._lock:
            self._allowed = min(self.messages, max(self._allowed, total))

    def nudge(self) -> None:
        """Let one more be sent than have been."""
        self.allow(self.sent + 1)

    def settle(self, *, is_ok: bool) -> None:
        """Count an answer; a call that was not answered ok may be made again."""
        with self._lock:
            if is_ok:
                self.accepted += 1
            else:
                self.sent -= 1

    @property
    def is_over(self) -> bool:
        """Whether everything has been accepted, or the time is up."""
        return self.done.is_set() or self.accepted >= self.messages

    def take(self) -> bool:
        """Wait for leave to send one more; False when there is nothing more to send."""
        while not self.done.is_set():
            with self._lock:
                if self.is_over:
                    return False
                if self.sent < self._allowed:
                    self.sent += 1
                    return True
            self.done.wait(0.02)
        return False


@dataclass
class Sender:
    """One sender: its calls are one after the other, so its numbers are in its order."""

    place: int
    personality: str
    way: Callable[[Sender, str, int], Answer]
    path: Any
    fleet: Fleet
    history: History
    pace: Pace
    seed: int

    def run(self) -> None:
        """Send until the pace says that it is enough."""
        random = Random(f"{self.seed}-{self.place}")  # noqa: S311 - variety that can be repeated
        number = (self.place + 1) * NUMBERS_EACH
        address = self.fleet.address(self.personality)
        readers = [name for name in self.fleet.readers if name != self.personality]
        while self.pace.take():
            if self.path != "cli":
                # Without a daemon there is nobody to ask; the command does without one.
                self.fleet.up.wait(UP_S)
            number += 1
            reader = random.choice(readers)
            began = time.time()
            answer = self.way(self, reader, number)
            self.history.add(
                Call(
                    number=number,
                    sender=address,
                    recipient=self.fleet.address(reader),
                    path=self.path,
                    outcome=answer.outcome,
                    began=began,
                    ended=time.time(),
                    message_id=answer.message_id,
                    state=answer.state,
                    code=answer.code,
                )
            )
            self.pace.settle(is_ok=answer.outcome == "ok")
            crowd = min(2.0, max(0.0, (answer.depth - CROWDED) * 0.05))
            self.pace.done.wait(random.uniform(0.0, 0.15) + crowd)


def by_socket(sender: Sender, reader: str, number: int) -> Answer:
    """Send as a program of this account does."""
    fields = {
        "to": reader,
        "message": body_of(number),
        "from": sender.fleet.address(sender.personality),
    }
    try:
        status, answer = hot.request(
            "POST",
            "/api/v1/send",
            fields,
            socket_path=sender.fleet.daemon.socket,
            timeout_s=hot.SEND_TIMEOUT_S,
        )
    except hot.DaemonUnreachable as error:
        never_asked = isinstance(error.__cause__, FileNotFoundError | ConnectionRefusedError)
        return Answer("refused" if never_asked else "unknown", code="unreachable")
    except hot.BadAnswer:
        return Answer("unknown", code="bad_answer")
    return read_answer(status, answer)


def read_answer(status: int, answer: object) -> Answer:
    """Return what an HTTP answer says: a 5xx leaves open whether the message was kept."""
    if not isinstance(answer, dict):
        return Answer("unknown", code=str(status))
    if status < 400 and answer.get("ok") is True:
        return _ok(answer)
    code = str((answer.get("error") or {}).get("code", status))
    # `failed` and `expired`: it was stored, and what became of it is the answer.
    is_open = status >= 500 or code in ("failed", "expired", "timeout")
    return Answer("unknown" if is_open else "refused", code=code)


def by_command(sender: Sender, reader: str, number: int) -> Answer:
    """Send as a person does, the text on stdin; with no daemon it goes into the ledger itself."""
    words = ["send", reader, "--message-file", "-", "--json", "--no-start"]
    words += ["--from", sender.fleet.address(sender.personality)]
    fault = sender.fleet.take_command_fault()
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "iapeer", *words],
            input=body_of(number),
            env={**sender.fleet.daemon.environ, **({env.FAULT: fault} if fault else {})},
            cwd=sender.fleet.daemon.base,
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Answer("unknown", code="timeout")
    if done.returncode:
        if fault and done.returncode == -signal.SIGKILL:
            sender.fleet.command_died.set()
        return Answer("unknown", code=f"exit {done.returncode}")
    return _ok(json.loads(done.stdout))


def by_mcp(sender: Sender, reader: str, number: int) -> Answer:
    """Send as the agent itself does: with the token of its live session, by the MCP tool."""
    address = sender.fleet.address(sender.personality)
    sessions = [s for s in sender.fleet.live_sessions() if s.personality == sender.personality]
    try:
        variables = psutil.Process(sessions[-1].pane_pid or 0).environ() if sessions else {}
    except psutil.Error:
        variables = {}
    url, token = variables.get(env.MCP_URL), variables.get(env.SESSION_TOKEN)
    if not url or not token:
        time.sleep(0.3)
        return Answer("refused", code="no session to speak from")
    headers = {"X-IAPeer-Identity": address, "Authorization": f"Bearer {token}"}
    arguments = {"personality": reader, "message": body_of(number)}
    try:
        result = _call_tool(url, headers, arguments)
    except (httpx2.HTTPError, ValueError, KeyError) as error:
        return Answer("unknown", code=type(error).__name__)
    return _ok(result) if result.get("ok") is True else Answer("unknown", code="tool error")


def _call_tool(url: str, headers: dict[str, str], arguments: dict[str, str]) -> dict[str, Any]:
    """Return what the tool says, {} for a refusal: one request is enough, there is no session."""
    body = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "send_to_peer", "arguments": arguments},
    }
    named = headers | {"Accept": "application/json"}
    answer = httpx2.post(url, json=body, headers=named, timeout=MCP_S, trust_env=False)
    result: dict[str, Any] = answer.json()["result"]
    return {} if result["isError"] else dict(result["structuredContent"])


def _ok(answer: dict[str, Any]) -> Answer:
    return Answer(
        "ok",
        message_id=str(answer.get("message_id", "")),
        state=str(answer.get("state", "")),
        depth=int(answer.get("queueDepth", 0)),
    )
