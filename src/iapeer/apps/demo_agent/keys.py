"""Bytes of a terminal in raw mode become events, whatever way the reads are cut.

Pure: `Decoder.feed` never looks at a clock. A lone ESC is only known to be the Escape key when
nothing follows it; the caller decides how long to wait and calls `flush`.
"""

from __future__ import annotations

import codecs

from .values import Value

PASTE_BEGIN = b"\x1b[200~"
PASTE_END = b"\x1b[201~"
PASTE_LIMIT = 1 << 20
"""Bytes kept of one paste; the rest is dropped. A message is at most 64 KB."""

SEQUENCE_LIMIT = 32
"""A longer control sequence is noise and is dropped."""

ESCAPE_S = 0.05
"""An ESC followed by nothing for so long was the Escape key."""
SEQUENCE_S = 1.0
"""A sequence may be cut by a busy machine: taking half a paste marker for a key would turn the
paste into typed lines."""

_ESC = 0x1B
_CONTROL = {
    0x0D: "enter",
    0x0A: "newline",
    0x08: "backspace",
    0x7F: "backspace",
    0x09: "tab",
}
_FINAL = {ord("A"): "up", ord("B"): "down", ord("C"): "right", ord("D"): "left"}


class Event(Value):
    """`kind` is `text` (typed), `paste` (one whole paste, LF only) or `key` (its name)."""

    __slots__ = ("kind", "value")

    def __init__(self, kind: str, value: str) -> None:
        self.kind = kind
        self.value = value


class Decoder:
    """Feed bytes, get events. Invalid UTF-8 becomes U+FFFD, an unknown sequence key `unknown`."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._paste: bytearray | None = None
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def wait_s(self) -> float:
        """How long more bytes must stay away before `flush`; 0: nothing is pending."""
        if self._paste is not None or not self._pending:
            return 0.0
        return ESCAPE_S if len(self._pending) == 1 else SEQUENCE_S

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that are complete; adjacent typed text is joined."""
        self._pending += data
        events: list[Event] = []
        while self._pending:
            if not (self._in_paste(events) if self._paste is not None else self._typed(events)):
                break
        return _joined(events)

    def flush(self) -> list[Event]:
        """Nothing came for a while: what looked like the start of a sequence was the Escape key."""
        if not self.wait_s:
            return []
        self._pending.clear()
        return [Event("key", "escape")]

    def _in_paste(self, events: list[Event]) -> bool:
        """Take paste content; True when the end was seen and there may be more."""
        assert self._paste is not None  # noqa: S101 - for the type checker
        end = self._pending.find(PASTE_END)
        if end < 0:
            safe = len(self._pending) - _overlap(self._pending)
            self._keep(bytes(self._pending[:safe]))
            del self._pending[:safe]
            return False
        self._keep(bytes(self._pending[:end]))
        del self._pending[: end + len(PASTE_END)]
        text = bytes(self._paste).decode("utf-8", "replace")
        self._paste = None
        events.append(Event("paste", text.replace("\r\n", "\n").replace("\r", "\n")))
        return True

    def _keep(self, data: bytes) -> None:
        assert self._paste is not None  # noqa: S101 - for the type checker
        self._paste += data[: PASTE_LIMIT - len(self._paste)]

    def _typed(self, events: list[Event]) -> bool:
        """Take one run of characters, control or sequence; False if more bytes are needed."""
        first = self._pending[0]
        if first == _ESC:
            return self._sequence(events)
        if first >= 0x20 and first != 0x7F:
            run = 1
            while run < len(self._pending) and _is_text(self._pending[run]):
                run += 1
            text = self._utf8.decode(bytes(self._pending[:run]))
            del self._pending[:run]
            if text:
                events.append(Event("text", text))
            return True
        self._end_text(events)
        del self._pending[:1]
        events.append(Event("key", _CONTROL.get(first) or f"c-{chr(first | 0x60)}"))
        return True

    def _end_text(self, events: list[Event]) -> None:
        rest = self._utf8.decode(b"", final=True)
        if rest:
            events.append(Event("text", rest))

    def _sequence(self, events: list[Event]) -> bool:
        self._end_text(events)
        pending = self._pending
        if len(pending) == 1:
            return False
        if pending[1] not in b"[O":
            del pending[:1]
            events.append(Event("key", "escape"))
            return True
        at = 2
        if pending[1] == ord("["):
            while at < len(pending) and 0x20 <= pending[at] <= 0x3F and at < SEQUENCE_LIMIT:
                at += 1
        if at >= len(pending):
            return False
        if not 0x40 <= pending[at] <= 0x7E:
            # Broken off: what stands there is read as if the sequence had never begun.
            del pending[:at]
            events.append(Event("key", "unknown"))
            return True
        whole = bytes(pending[: at + 1])
        del pending[: at + 1]
        if whole == PASTE_BEGIN:
            self._paste = bytearray()
        else:
            events.append(Event("key", _FINAL.get(whole[-1], "unknown")))
        return True


def _is_text(byte: int) -> bool:
    return byte >= 0x20 and byte != 0x7F


def _overlap(data: bytearray) -> int:
    """Return how many last bytes may be the beginning of the end of a paste."""
    for size in range(min(len(PASTE_END) - 1, len(data)), 0, -1):
        if data.endswith(PASTE_END[:size]):
            return size
    return 0


def _joined(events: list[Event]) -> list[Event]:
    joined: list[Event] = []
    for event in events:
        if event.kind == "text" and joined and joined[-1].kind == "text":
            joined[-1] = Event("text", joined[-1].value + event.value)
        else:
            joined.append(event)
    return joined
