"""`iapeer trace`: what happened to one message, told in the order it happened."""

from __future__ import annotations

from datetime import datetime

import msgspec

from . import output, wire
from .grammar import Call
from .send import plain

_EVENTS = {
    "accept": "accepted",
    "hold": "held",
    "hand_over": "handed to the runtime",
    "land": "landed: the runtime has it",
    "see": "seen by the reader",
    "return": "given back: it may be shown a second time",
    "fail": "failed",
    "expire": "expired",
}
"""The steps of a message in a reader's words; a step we don't know is shown as it is."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step; `at` is seconds since the epoch."""

    at: float
    state: str
    event: str
    reason: str = ""
    door: str = ""
    attempt: int = 0
    evidence: str = ""


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """A message without its body; unknown keys of the daemon's answer are left out."""

    id: str
    sender: str
    recipient: str
    state: str
    reason: str
    topic: str | None
    length: int
    dup: bool
    accepted_ts: str
    steps: tuple[Step, ...]


def trace(call: Call) -> int:
    """Print the story of one message."""
    answer = wire.ask("GET", wire.message_path(call.need("message-id")))
    told = answer["message"]
    if call.has("json"):
        output.emit(told)
    else:
        output.say(_tell(msgspec.convert(told, Story)))
    return 0


def _tell(story: Story) -> str:
    lines = [f"message {story.id}: {story.sender} -> {story.recipient}"]
    lines.append(f"  {story.length} characters" + (f", topic {story.topic}" if story.topic else ""))
    lines.append(f"  accepted {story.accepted_ts}")
    lines.extend(f"  {_step(step)}" for step in story.steps)
    if story.dup:
        lines.append("  it may have been shown twice, and is marked so")
    why = f": {plain(story.state, story.reason)}" if story.reason else ""
    return "\n".join([*lines, f"now {story.state}{why}"])


def _step(step: Step) -> str:
    clock = datetime.fromtimestamp(step.at).astimezone()
    text = _EVENTS.get(step.event, step.event)
    if step.reason:
        text += f": {plain(step.state, step.reason)}"
    facts = [f"door {step.door}"] if step.door else []
    if step.attempt > 1:
        facts.append(f"attempt {step.attempt}")
    if step.evidence:
        facts.append(f"proof: {step.evidence}")
    return f"{clock:%H:%M:%S}.{clock.microsecond // 1000:03d}  {text}" + (
        f" ({', '.join(facts)})" if facts else ""
    )
