"""A small tolerant reader of what arrives: a peer's message in an envelope, or plain typed text.

Not `core.envelope`, on purpose: this program stays small and shows what any agent can do with the
text it is given. It proves nothing and guards nothing.
"""

from __future__ import annotations

import re

from .values import Value

_OPEN = re.compile(r"<iap\s([^>]*)>")
_ATTRIBUTE = re.compile(r'(?:^|\s)([a-z-]+)="([^"]*)"')
_SECTION = "<![CDATA["
_ESCAPES = (("&quot;", '"'), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&"))


class Inbound(Value):
    """One user text. `sender` is empty when a human typed it."""

    __slots__ = ("body", "message_id", "runtime", "sender", "topic")

    def __init__(
        self,
        body: str,
        *,
        sender: str = "",
        runtime: str = "",
        topic: str = "",
        message_id: str = "",
    ) -> None:
        self.body = body
        self.sender = sender
        self.runtime = runtime
        self.topic = topic
        self.message_id = message_id

    @property
    def first_line(self) -> str:
        """Return the first line that says something."""
        return next((line.strip() for line in self.body.splitlines() if line.strip()), "")


def read_inbound(text: str) -> Inbound:
    """Return the first message in a text; text without a readable envelope is all body."""
    found = _OPEN.search(text)
    if found is None:
        return Inbound(text)
    names = {name: _unescape(value) for name, value in _ATTRIBUTE.findall(found.group(1))}
    sender = names.get("from") or names.get("from-personality")
    body = _content(text[found.end() :], "message")
    if body is None:
        body = _content(text[found.end() :], "msg")
    if not sender or body is None:
        return Inbound(text)
    return Inbound(
        body,
        sender=sender,
        runtime=names.get("runtime") or names.get("from-runtime", ""),
        topic=names.get("topic", ""),
        message_id=names.get("id", ""),
    )


def _content(text: str, tag: str) -> str | None:
    """Return what stands between the tags, looking for both outside CDATA only."""
    begin = _outside(text, f"<{tag}>", 0)
    if begin is None:
        return None
    end = _outside(text, f"</{tag}>", begin[1])
    return None if end is None else _joined(text[begin[1] : end[0]])


def _outside(text: str, wanted: str, at: int) -> tuple[int, int] | None:
    """Return where `wanted` begins and ends, skipping CDATA sections."""
    while True:
        found, section = text.find(wanted, at), text.find(_SECTION, at)
        if found < 0:
            return None
        if section < 0 or found < section:
            return found, found + len(wanted)
        closed = text.find("]]>", section)
        if closed < 0:
            return None
        at = closed + 3


def _joined(content: str) -> str:
    """Return sections and raw text in one piece; this also rebuilds a split `]]>`."""
    pieces = []
    while True:
        before, section, rest = content.partition(_SECTION)
        pieces.append(before)
        if not section:
            return "".join(pieces)
        inside, _, content = rest.partition("]]>")
        pieces.append(inside)


def _unescape(text: str) -> str:
    for escaped, plain in _ESCAPES:
        text = text.replace(escaped, plain)
    return text
