"""What a runtime's own record proves: pure reading of JSONL lines into facts.

Evidence can't be forged by quoting: only records the manifest names as user input (or the
runtime's queue) are looked at, and of their text only top-level envelopes count. A message that
quotes another envelope, or an assistant that prints one, yields nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

import msgspec

from iapeer.core.envelope import decode, extract
from iapeer.core.errors import EnvelopeError
from iapeer.core.states import TurnEnd
from iapeer.runtimes.spec import Evidence, HookKind, Record, lookup

FactKind = Literal["user", "enqueue", "dequeue", "turn_start", "turn_end", "compacted", "session"]

WORDS_MAX = 500
"""Longest text of an error that is kept, in characters."""

_TEXT_TYPES = ("text", "input_text")

MAX_LINE_BYTES = 4 << 20
"""A record longer than this is skipped: a message is at most 64 KB, tool output may be anything."""


class Fact(msgspec.Struct, frozen=True):
    """One thing the runtime told.

    `ids` are message ids of top-level envelopes, in order; a user input without any is a person's.
    A turn's end with ids corrects an earlier one: that turn of theirs was no interrupted one.
    `status` of a turn's end is a `TurnEnd`; of one that failed `error` is the category, `words` the
    text shown to people and `reset_at` the wall time it is over, where the runtime gives one. `at`
    is the wall time it happened: an end ends only turns that were seen to begin before it.
    `stamp` is the same by the program's own word, where its hooks alone tell of turns: of two ends
    of one turn the earlier one counts, in whatever order they come in.
    `begins` says of a user input that a turn begins with it, so that every one before it is over.
    `spares` are ids of messages whose turns began after it or run beside it, whatever their times
    say.
    `native_id` and `transcript` name the conversation it happened in, where the source tells.
    """

    kind: FactKind
    ids: tuple[str, ...] = ()
    status: str = ""
    source: str = ""
    error: str = ""
    words: str = ""
    reset_at: float | None = None
    at: float | None = None
    stamp: float | None = None
    begins: bool = False
    spares: tuple[str, ...] = ()
    native_id: str = ""
    transcript: str = ""


def ids_in(text: str) -> tuple[str, ...]:
    """Return the ids of the top-level envelopes in a user input, in order."""
    found = []
    for candidate in extract(text)[0]:
        try:
            message_id = decode(candidate).id
        except EnvelopeError:
            continue
        if message_id:
            found.append(message_id)
    return tuple(found)


def read_line(line: bytes, records: Sequence[Record], source: str) -> Fact | None:
    """Return the fact in one JSONL line, None when it is of no known kind or no JSON."""
    try:
        decoded = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(decoded, Mapping):
        return None
    for record in records:
        if record.matches(decoded):
            return _fact(decoded, record, source)
    return None


def _fact(line: Mapping[str, object], record: Record, source: str) -> Fact | None:
    texts = _texts(lookup(line, record.text)) if record.text else []
    match record.kind:
        case "ignore":
            return None
        case "turn_end":
            status = lookup(line, record.status) if record.status else record.ends
            return Fact(
                kind="turn_end",
                status=_word(status),
                source=source,
                error=_word(lookup(line, record.error)) if record.error else "",
                at=_time(lookup(line, record.at)) if record.at else None,
                words=" ".join(texts)[:WORDS_MAX],
            )
        case "user" | "enqueue" | "dequeue":
            # Nothing was said: the result of a tool, which some programs write down as the user's.
            at = _time(lookup(line, record.at)) if record.at else None
            if not texts:
                return None
            return Fact(record.kind, _ids(texts), source=source, at=at, begins=record.begins)
        case kind:
            return Fact(kind, source=source)


def read_hook(event: Mapping[str, object], evidence: Evidence) -> Fact | None:
    """Return the fact in one event that the runtime told our hook of, None for another one."""
    name = _word(event.get("hook_event_name"))
    kind = evidence.hooks.get(name)
    texts = _texts(event.get("prompt"))
    if kind is None and not evidence.hooks and texts:
        kind = "prompt"
    fact = _told(event, kind, texts)
    if fact is None:
        return None
    stamp = _stamp(event, evidence)
    return msgspec.structs.replace(
        fact,
        source=f"hook {name}" if name else "prompt hook",
        # A program waits for this one hook before it goes on. No later word can come before it, and
        # a clock that was set back leaves no turn open.
        at=None if fact.status == TurnEnd.DONE else stamp,
        stamp=stamp,
        native_id=_word(event.get("session_id")),
        transcript=_word(event.get("transcript_path")),
    )


def _told(event: Mapping[str, object], kind: HookKind | None, texts: Sequence[str]) -> Fact | None:
    match kind:
        case "prompt" | "turn_prompt":
            return Fact("user", ids=_ids(texts), begins=kind == "turn_prompt")
        case "turn_end":
            return Fact("turn_end", status=TurnEnd.DONE)
        case "interrupted":
            return Fact("turn_end", status=TurnEnd.INTERRUPTED)
        case "turn_failed":
            words = " ".join(_texts(event.get("last_assistant_message")))
            return Fact(
                "turn_end",
                status=TurnEnd.API_ERROR,
                error=_word(event.get("error")),
                words=words[:WORDS_MAX],
            )
        case "session" | "compacted":
            return Fact(kind)
        case None:
            return None


def _stamp(event: Mapping[str, object], evidence: Evidence) -> float | None:
    """Return when it happened; None where a record ends turns too, whose lines come without it."""
    if any(record.kind == "turn_end" for record in evidence.records):
        return None
    return _time(event.get("timestamp"))


def _ids(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(found for text in texts for found in ids_in(text))


def _texts(value: object) -> list[str]:
    """Return the texts of a user input: a string, or those blocks of a list that are text."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        return []
    blocks = (block for block in value if isinstance(block, Mapping))
    found = (block.get("text") for block in blocks if block.get("type") in _TEXT_TYPES)
    return [text for text in found if isinstance(text, str)]


def _time(value: object) -> float | None:
    try:
        return datetime.fromisoformat(value).timestamp() if isinstance(value, str) else None
    except ValueError:
        return None


def _word(value: object) -> str:
    return value if isinstance(value, str) else ""


class LineBuffer:
    """Cuts a growing file into complete lines; an over-long line is skipped, never kept."""

    def __init__(self) -> None:
        self._rest = b""
        self._skipping = False

    @property
    def pending(self) -> int:
        """Bytes of an incomplete last line."""
        return len(self._rest)

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the lines that `chunk` completes."""
        *lines, rest = (self._rest + chunk).split(b"\n")
        if self._skipping and lines:
            lines = lines[1:]
            self._skipping = False
        if len(rest) > MAX_LINE_BYTES:
            rest, self._skipping = b"", True
        self._rest = b"" if self._skipping else rest
        return [line for line in lines if len(line) <= MAX_LINE_BYTES]
