"""`iapeer trace`: what happened to one message, told in the order it happened."""

from __future__ import annotations

import os
from datetime import datetime
from typing import Any

import msgspec

from iapeer.core.errors import DaemonDown, InvalidInput
from iapeer.core.ids import is_message_id

from . import output, wire
from .context import load_settings
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
    "redelivered": "the operator",
    "dropped": "dropped by the operator",
}
"""The steps of a message in a reader's words; a step we don't know is shown as it is."""


_ENDS = {
    "done": "the reader's turn ended",
    "api_error": "the reader's turn ended early: its model did not answer",
    "interrupted": "the reader's turn was interrupted by a person",
    "died": "the reader's session died in this turn",
    "unknown": "the reader's turn ended, nobody saw how",
}
"""How turns end, in a reader's words."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step; `at` is seconds since the epoch."""

    at: float
    state: str
    event: str
    reason: str = ""
    door: str = ""
    attempt: int = 0
    evidence: str = ""


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """The turn that an attempt was seen in; `end` is empty while it runs."""

    attempt: int
    seen_at: float
    end: str
    ended_at: float | None


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
    turns: tuple[Turn, ...] = ()
    answered_by: str = ""
    altered: int = 0


def trace(call: Call) -> int:
    """Print the story of one message."""
    message_id = call.need("message-id")
    try:
        told = wire.ask("GET", wire.message_path(message_id))["message"]
    except DaemonDown:
        told = _offline(message_id)
    if call.has("json"):
        output.emit(told)
    else:
        output.say(_tell(msgspec.convert(told, Story)))
    return 0


def _offline(message_id: str) -> dict[str, Any]:
    from iapeer.host.letters import OfflineHouse

    if not is_message_id(message_id):
        raise InvalidInput(f"{message_id!r} is no message id", hint="send prints it")
    told: dict[str, Any] = msgspec.to_builtins(
        OfflineHouse(load_settings(), os.environ).trace(message_id)
    )
    return told


def _tell(story: Story) -> str:
    lines = [f"message {story.id}: {story.sender} -> {story.recipient}"]
    lines.append(f"  {story.length} characters" + (f", topic {story.topic}" if story.topic else ""))
    lines.append(f"  accepted {story.accepted_ts}")
    told = [(step.at, _step(step)) for step in story.steps]
    told += [(turn.ended_at, _turn(turn)) for turn in story.turns if turn.ended_at is not None]
    lines.extend(f"  {_clock(at)}  {text}" for at, text in sorted(told, key=lambda each: each[0]))
    if any(turn.ended_at is None for turn in story.turns):
        lines.append("  its reader is still at work on it")
    if story.answered_by:
        lines.append(f"  answered by message {story.answered_by}")
    if story.altered:
        lines.append(f"  {story.altered} characters were altered, to be safe in a terminal")
    if story.dup:
        lines.append("  it may have been shown twice, and is marked so")
    why = f": {plain(story.state, story.reason)}" if story.reason else ""
    return "\n".join([*lines, f"now {story.state}{why}"])


def _clock(at: float) -> str:
    clock = datetime.fromtimestamp(at).astimezone()
    return f"{clock:%H:%M:%S}.{clock.microsecond // 1000:03d}"


def _turn(turn: Turn) -> str:
    text = _ENDS.get(turn.end, f"its turn ended: {turn.end}")
    return text + (f" (attempt {turn.attempt})" if turn.attempt > 1 else "")


def _step(step: Step) -> str:
    text = _EVENTS.get(step.event, step.event)
    if step.reason:
        text += f": {plain(step.state, step.reason)}"
    facts = [f"door {step.door}"] if step.door else []
    if step.attempt > 1:
        facts.append(f"attempt {step.attempt}")
    if step.evidence:
        facts.append(f"proof: {step.evidence}")
    return text + (f" ({', '.join(facts)})" if facts else "")
