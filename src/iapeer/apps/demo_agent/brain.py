"""What to do about a message: pure rules from text and memory to a list of actions.

The directives are described in the package's docstring, which `--help` prints.
"""

from __future__ import annotations

from collections.abc import Callable

from .inbound import Inbound
from .values import Value

ASKS_LIMIT = 100
"""Questions remembered at once; the oldest is forgotten."""
SLOW_LIMIT_S = 600.0
MESSAGE_LIMIT = 16_000
"""Characters of one message, as the tool's schema says."""
CORE = "iapeer"
"""The core's own name: its notices are information and can't be answered."""


class Action(Value):
    """One step of a turn.

    `kind`: `send` (to, runtime, topic, text), `say` (text), `wait` (number: seconds), `hold`
    (text: a file that is waited for), `exit` (number: status), `fail` (the turn ends with an API
    error).
    """

    __slots__ = ("kind", "number", "runtime", "text", "to", "topic")

    def __init__(self, kind: str, text: str = "", *, number: float = 0.0) -> None:
        self.kind = kind
        self.text = text[:MESSAGE_LIMIT]
        self.number = number
        self.to = ""
        self.runtime = ""
        self.topic = ""

    def input(self) -> dict[str, str]:
        """Return the arguments of the tool call of a `send`."""
        named = {
            "personality": self.to,
            "runtime": self.runtime,
            "topic": self.topic,
            "message": self.text,
        }
        return {name: value for name, value in named.items() if value}


def send(to: str, text: str, topic: str = "", runtime: str = "") -> Action:
    """Return the action that sends a message to a peer."""
    action = Action("send", text)
    action.to, action.topic, action.runtime = to, topic[:200], runtime
    return action


class Brain:
    """Remembers who asked what; `think` turns one message into actions and never blocks."""

    def __init__(self) -> None:
        self._asks: dict[str, list[Inbound]] = {}
        self._rules: dict[str, Callable[[Inbound, str], list[Action]]] = {
            "ASK": self._ask,
            "SEND": self._send,
            "REPLY": self._answer,
            "SAY": self._say,
            "SLOW": self._slow,
            "HOLD": self._hold,
            "PINGPONG": self._pingpong,
            "RING": self._ring,
            "APIERROR": self._api_error,
            "EXIT": self._exit,
            "NOTHING": self._nothing,
        }

    def think(self, message: Inbound) -> list[Action]:
        """Return what to do about one message, in order."""
        if is_answer(message):
            return self._report(message)
        if message.sender == CORE:
            return [Action("say", f"notice: {message.first_line}")]
        known = False
        actions: list[Action] = []
        for line in message.body.splitlines():
            word, _, rest = line.strip().partition(" ")
            if word == "END":
                return actions
            rule = self._rules.get(word)
            if rule is not None:
                known = True
                actions.extend(rule(message, rest.strip()))
        return actions if known else [_reply(message, f"got it: {message.first_line[:200]}")]

    def _report(self, answer: Inbound) -> list[Action]:
        waiting = self._asks.get(answer.sender)
        if not waiting:
            return []
        asker = waiting.pop(0)
        if not waiting:
            del self._asks[answer.sender]
        return [_reply(asker, f"{answer.sender} says: {answer.body}")]

    def _ask(self, message: Inbound, rest: str) -> list[Action]:
        peer, _, text = rest.partition(" ")
        if not peer or not text:
            return [Action("say", "ASK needs a peer and a text")]
        if sum(map(len, self._asks.values())) >= ASKS_LIMIT:
            oldest = next(iter(self._asks))
            del self._asks[oldest]
        self._asks.setdefault(peer, []).append(message)
        return [send(peer, text)]

    def _send(self, _message: Inbound, rest: str) -> list[Action]:
        peer, _, text = rest.partition(" ")
        return [send(peer, text)] if text else [Action("say", "SEND needs a peer and a text")]

    def _answer(self, message: Inbound, rest: str) -> list[Action]:
        return [_reply(message, rest or "(empty)")]

    def _say(self, _message: Inbound, rest: str) -> list[Action]:
        return [Action("say", rest)]

    def _slow(self, _message: Inbound, rest: str) -> list[Action]:
        return [Action("wait", number=min(_number(rest, 1.0), SLOW_LIMIT_S))]

    def _hold(self, _message: Inbound, rest: str) -> list[Action]:
        return [Action("hold", rest)] if rest else [Action("say", "HOLD needs a file")]

    def _pingpong(self, message: Inbound, rest: str) -> list[Action]:
        left = int(_number(rest, 0))
        if left < 1 or not message.sender:
            return [Action("say", "pingpong is over")]
        return [send(message.sender, f"PINGPONG {left - 1}", "pingpong", message.runtime)]

    def _ring(self, _message: Inbound, rest: str) -> list[Action]:
        count, *peers = rest.split()[:33] or ["0"]
        left = int(_number(count, 0))
        if left < 1 or not peers:
            return [Action("say", "the ring is closed")]
        return [send(peers[0], " ".join(["RING", str(left - 1), *peers[1:], peers[0]]), "ring")]

    def _exit(self, _message: Inbound, rest: str) -> list[Action]:
        return [Action("exit", number=int(_number(rest, 0)) & 255)]

    def _api_error(self, _message: Inbound, _rest: str) -> list[Action]:
        return [Action("fail")]

    def _nothing(self, _message: Inbound, _rest: str) -> list[Action]:
        return []


def is_answer(message: Inbound) -> bool:
    """Tell whether a peer's message is itself an answer, which nobody must answer."""
    answered = message.topic.lower().startswith("re:") or message.first_line.startswith("got it")
    return bool(message.sender) and answered


def _reply(message: Inbound, text: str) -> Action:
    if not message.sender:
        return Action("say", text)
    return send(message.sender, text, f"re: {message.topic or 'your message'}", message.runtime)


def _number(text: str, default: float) -> float:
    try:
        value = float(text.split(maxsplit=1)[0]) if text else default
    except ValueError:
        return default
    return value if 0 <= value < 1e9 else default
