"""The turn: one user text at a time, what it leads to, and what waits behind it.

No terminal here. `Work` is told what was submitted, what ended and what time it is; it writes the
transcript, speaks through `say` and tells in `deadline` when it wants to be asked again.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable

from .brain import Action, Brain
from .inbound import read_inbound
from .options import Options
from .transcript import Transcript

TYPE_CHECKING = False
if TYPE_CHECKING:  # the two are loaded when first needed: threads, asyncio and the MCP client
    from .mcp_send import Outcome, Sender

QUEUE_LIMIT = 100
CRASH_STATUS = 70
IDENTITY_HEADER = "X-IAPeer-Identity"
HOLD_POLL_S = 0.05
"""How often a turn that is held looks for its file."""


class Work:
    """Turns, one after the other. `exit_code` is set when the program shall leave."""

    def __init__(
        self,
        options: Options,
        transcript: Transcript,
        *,
        say: Callable[[str], None],
        wake: Callable[[], None],
    ) -> None:
        self.queue: list[str] = []
        self.exit_code: int | None = None
        self.started = -1.0
        self.deadline: float | None = None
        self._options = options
        self._transcript = transcript
        self._say = say
        self._wake = wake
        self._brain = Brain()
        self._text = ""
        self._actions: list[Action] = []
        self._spoke = False
        self._waiting = ""
        self._held_by = ""
        self._sent: Action | None = None
        self._number = 0
        self._results: deque[tuple[int, str | Outcome]] = deque()
        self._sender: Sender | None = None

    @property
    def busy(self) -> bool:
        """Whether a turn is running."""
        return self.started >= 0

    def submit(self, text: str) -> bool:
        """Take one text; False: the queue is full and nothing was taken."""
        if self.busy:
            if len(self.queue) >= QUEUE_LIMIT:
                self._say("The queue is full.")
                return False
            self.queue.append(text)
            self._transcript.write("queue", op="enqueue", text=text)
            return True
        self._begin(text)
        self._pump()
        return True

    def interrupt(self) -> str:
        """Stop the turn; what is queued comes next.

        Returns the text of a turn in which nothing was said yet, when told to give it back: then
        nothing is written of it, as a real agent CLI does. Else nothing.
        """
        if not self.busy:
            return ""
        if "gives_back" in self._options.misbehave and not (self._spoke or self.queue):
            self._rest()
            return self._text
        if self._waiting == "send" and self._sender is not None:
            self._sender.cancel()
        self._say("\u23bf  Interrupted \u00b7 What should I do instead?")
        self._end("interrupted")
        self._pump()
        return ""

    def poll(self, now: float) -> None:
        """Take what ended meanwhile, and go on."""
        while self._results:
            number, result = self._results.popleft()
            if number != self._number or not self.busy:
                continue  # of a turn that was interrupted
            if isinstance(result, str):
                self._hook_ended(result)
            else:
                self._sent_ended(result)
        if self._waiting == "wait" and self.deadline is not None and now >= self.deadline:
            self._waiting, self.deadline = "", None
        if self._waiting == "hold" and self.deadline is not None and now >= self.deadline:
            self._look_for(self._held_by)
        self._pump()

    def _pump(self) -> None:
        """Go on until something has to be waited for."""
        while self.exit_code is None and not self._waiting:
            if self.busy:
                if self._actions:
                    self._perform(self._actions.pop(0))
                else:
                    self._end("done")
            elif self.queue:
                text = self.queue.pop(0)
                self._transcript.write("queue", op="dequeue", text=text)
                self._begin(text)
            else:
                return

    def _begin(self, text: str) -> None:
        """Start a turn, or do what the real programs do with a text that begins like a command."""
        if text.startswith("!"):
            self._transcript.write("shell", text=text)
            self._say(f"! not run: {text[1:80]}")
            return
        if text.startswith("/"):
            self._command(text)
            return
        self._transcript.write("user", text=text)
        self._transcript.write("turn", op="start")
        self._say(f"> {_brief(text)}")
        self._number += 1
        self.started = time.monotonic()
        self._text, self._spoke = text, False
        if "crash_on_message" in self._options.misbehave:
            os._exit(CRASH_STATUS)
        if self._options.hook:
            self._waiting = "hook"
            self._start_hook(text)
        else:
            self._actions = self._brain.think(read_inbound(text))

    def _command(self, text: str) -> None:
        self._transcript.write("command", text=text)
        word = text.split(maxsplit=1)[0]
        if word in ("/exit", "/quit"):
            self.exit_code = 0
        elif word == "/compact":
            self._compact()
        else:
            self._say(f"Unknown command: {word[:40]}")

    def _compact(self) -> None:
        if "nothing_to_compact" in self._options.misbehave:
            self._say("Not enough messages to compact.")
        elif "never_compacts" not in self._options.misbehave:
            self._transcript.write("compact")
            self._say("Compacted.")

    def _start_hook(self, text: str) -> None:
        from .prompt_hook import run_hook

        number = self._number
        fields = {
            "session_id": self._options.session,
            "transcript_path": self._transcript.path,
            "cwd": os.getcwd(),  # noqa: PTH109 - pathlib costs a tenth of the start-up budget
            "hook_event_name": "UserPromptSubmit",
            "prompt": text,
        }
        run_hook(self._options.hook, fields, lambda error: self._arrived(number, error))

    def _arrived(self, number: int, result: str | Outcome) -> None:
        """Called from a thread."""
        self._results.append((number, result))
        self._wake()

    def _hook_ended(self, error: str) -> None:
        if error:
            self._say(error)
        self._waiting = ""
        self._actions = self._brain.think(read_inbound(self._text))

    def _perform(self, action: Action) -> None:
        self._spoke = self._spoke or action.kind in ("say", "send")
        if action.kind == "say":
            self._transcript.write("assistant", text=action.text)
            self._say(f"\u25cf {action.text}")
        elif action.kind == "wait":
            self._waiting, self.deadline = "wait", time.monotonic() + action.number
        elif action.kind == "hold":
            self._held_by = action.text
            self._look_for(self._held_by)
        elif action.kind == "exit":
            self.exit_code = int(action.number)
        elif action.kind == "fail":
            self._say("\u25cf API error: told to fail")
            self._end("api_error")
        else:
            self._send(action)

    def _look_for(self, path: str) -> None:
        """Go on if that file is there; else look again a little later."""
        there = os.path.exists(path)  # noqa: PTH110 - as above
        self._waiting, self.deadline = (
            ("", None) if there else ("hold", time.monotonic() + HOLD_POLL_S)
        )

    def _send(self, action: Action) -> None:
        from .mcp_send import Sender

        if self._sender is None:
            options = self._options
            headers = {IDENTITY_HEADER: options.identity}
            if options.token:
                headers["Authorization"] = f"Bearer {options.token}"
            self._sender = Sender(
                options.mcp_url, headers, lambda outcome: self._arrived(outcome.number, outcome)
            )
        self._waiting, self._sent = "send", action
        self._say(f"\u25cf send_to_peer \u2192 {action.to}: {_brief(action.text)}")
        self._sender.submit(self._number, action.input())

    def _sent_ended(self, outcome: Outcome) -> None:
        assert self._sent is not None  # noqa: S101 - for the type checker
        self._transcript.write(
            "tool",
            name="send_to_peer",
            input=self._sent.input(),
            result=outcome.result,
            is_error=outcome.is_error,
            ms=outcome.ms,
        )
        self._say(f"  \u23bf  {_told(outcome)}")
        self._waiting, self._sent = "", None

    def _end(self, status: str) -> None:
        seconds = time.monotonic() - self.started
        self._transcript.write("turn", op="end", status=status)
        if seconds >= 1:
            self._say(f"\u273b Worked for {seconds:.0f}s")
        self._rest()
        if "lose_queue" in self._options.misbehave:
            self.queue.clear()

    def _rest(self) -> None:
        self.started = -1.0
        self._waiting, self.deadline = "", None
        self._actions, self._sent = [], None


def _brief(text: str) -> str:
    """Return the first lines of a text, for the screen."""
    lines = text.split("\n")
    more = f" \u2026 +{len(lines) - 3} lines" if len(lines) > 3 else ""
    return "\n".join(lines[:3]) + more


def _told(outcome: Outcome) -> str:
    result = outcome.result
    if outcome.is_error:
        return f"error: {result.get('error') or result.get('text') or result}"
    state = result.get("state") or ("queued" if result.get("queued") else "ok")
    identifier = result.get("message_id", "")
    return f"{state} {identifier} ({outcome.ms} ms)"
