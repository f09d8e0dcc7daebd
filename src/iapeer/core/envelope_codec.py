"""The envelope as a value, and its wire form."""

from __future__ import annotations

import re

import msgspec

from iapeer.core.draft import TOPIC_MAX
from iapeer.core.errors import EnvelopeError
from iapeer.core.identity import Intelligence, read_intelligence

INSTRUCTION = "IAP message from known peers. Reply via send_to_peer."
"""The fixed second line of both forms."""

BUFFER_MAX = 256 * 1024
"""Longest envelope, in characters. 16000 characters of body, were each `]]>` of it split, and
20 paths of PATH_MAX (4096) come to 162 000."""

CDATA_OPEN = "<![CDATA["
CDATA_CLOSE = "]]>"

_OPEN_TAG = re.compile(r"<iap\s([^>]*)>")
# Read one after the other, so that a value is never searched for attributes: with a lookup by
# search, the topic `x from=` would hand the sender's name to whoever chose the topic.
_ATTRIBUTE = re.compile(r'(?:^|\s)([^\s="<>]+)="([^"]*)"')
_TOKEN = re.compile(r"<!\[CDATA\[|</iap>|<(/?)(attachments|message|msg)>")
_NOT_ON_ONE_LINE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """One message with its sender.

    `from_intelligence` is None when the sender's is unknown; `attachments` are absolute paths;
    `ts` is the moment of acceptance, ISO 8601 with offset (in the compact form a clock time);
    `id` is the ledger's message id; `dup` is "maybe" on a message that may come twice.
    """

    from_personality: str
    from_runtime: str
    from_intelligence: Intelligence | None
    body: str
    attachments: tuple[str, ...] = ()
    topic: str | None = None
    ts: str | None = None
    id: str | None = None
    dup: str | None = None


def encode(envelope: Envelope) -> str:
    """Return the wire form: lines joined by LF, no trailing one, body and paths as CDATA.

    The open tag is always one line: control characters in attributes become blanks. The topic
    is trimmed, cut to TOPIC_MAX, and left out when empty. Body and paths are kept as they are,
    CR and CRLF too. Raises EnvelopeError when the result is longer than BUFFER_MAX: a reader
    drops such an envelope and looks for others in it, and would find those its body quotes.
    """
    lines = [
        open_tag(
            (
                ("from-personality", envelope.from_personality),
                ("from-runtime", envelope.from_runtime),
                ("from-intelligence", envelope.from_intelligence),
                ("ts", envelope.ts),
                ("topic", envelope.topic),
                ("id", envelope.id),
                ("dup", envelope.dup),
            )
        ),
        INSTRUCTION,
    ]
    if envelope.attachments:
        lines.append(f"<attachments>{cdata(joined(envelope.attachments))}</attachments>")
    lines += [f"<message>{cdata(envelope.body)}</message>", "</iap>"]
    text = "\n".join(lines)
    if len(text) > BUFFER_MAX:
        raise EnvelopeError(f"envelope exceeds {BUFFER_MAX} char limit (got {len(text)})")
    return text


def decode(text: str) -> Envelope:
    """Read an envelope in either form.

    Attributes are found by name; unknown ones and an unknown intelligence are dropped. Text
    after the closing tag is ignored. Raises EnvelopeError: `missing <iap ...>`, `missing
    from-personality/from-runtime`, `missing message`.
    """
    text = text.strip()
    match = _OPEN_TAG.match(text)
    if match is None:
        raise EnvelopeError("missing <iap ...> open tag", text)
    attributes = read_attributes(match[1])
    sender = sender_of(attributes)
    if sender is None:
        raise EnvelopeError("missing from-personality/from-runtime", text)
    content = _read_elements(text, match.end())
    body = content.get("message", content.get("msg"))
    if body is None:
        raise EnvelopeError("missing message", text)
    word = attributes.get("intelligence") or attributes.get("from-intelligence") or ""
    paths = (path.strip() for path in content.get("attachments", "").split("\n"))
    return Envelope(
        from_personality=sender[0],
        from_runtime=sender[1],
        from_intelligence=read_intelligence(word),
        body=body,
        attachments=tuple(path for path in paths if path),
        topic=attributes.get("topic") or None,
        ts=attributes.get("ts") or None,
        id=attributes.get("id") or None,
        dup=attributes.get("dup") or None,
    )


def open_tag(attributes: tuple[tuple[str, str | None], ...]) -> str:
    """Return the open tag with those attributes in that order; empty ones are left out."""
    written = []
    for name, value in attributes:
        line = _NOT_ON_ONE_LINE.sub(" ", value or "")
        if name == "topic":
            line = line.strip()[:TOPIC_MAX].rstrip()
        if line:
            written.append(f' {name}="{_escape(line)}"')
    return f"<iap{''.join(written)}>"


def read_attributes(text: str) -> dict[str, str]:
    """Return the attributes of an open tag, unescaped; of two with one name the first counts."""
    found: dict[str, str] = {}
    for name, value in _ATTRIBUTE.findall(text):
        found.setdefault(name, _unescape(value))
    return found


def sender_of(attributes: dict[str, str]) -> tuple[str, str] | None:
    """Return (personality, runtime) under either naming, the short one first; None if missing."""
    personality = attributes.get("from") or attributes.get("from-personality")
    runtime = attributes.get("runtime") or attributes.get("from-runtime")
    return (personality, runtime) if personality and runtime else None


def cdata(text: str) -> str:
    """Return `text` as CDATA; a `]]>` inside is split over two sections."""
    return f"{CDATA_OPEN}{text.replace(CDATA_CLOSE, ']]]]><![CDATA[>')}{CDATA_CLOSE}"


def joined(attachments: tuple[str, ...]) -> str:
    """Return the paths as the content of `<attachments>`: one a line."""
    return "\n".join(attachments)


def _read_elements(text: str, start: int) -> dict[str, str]:
    """Return the content of each known element from `start` to the closing tag.

    An element that is never closed counts as prose: reading starts over behind its open tag,
    at most once per element name, which keeps this linear.
    """
    found: dict[str, str] = {}
    unclosed: set[str] = set()
    position: int | None = start
    while position is not None:
        position = _read_run(text, position, found, unclosed)
    return found


def _read_run(text: str, position: int, found: dict[str, str], unclosed: set[str]) -> int | None:
    """Read elements into `found`; return where to start over, None at the end."""
    element = ""
    opened_at = 0
    raw_from = position
    parts: list[str] = []
    while (token := _TOKEN.search(text, position)) is not None:
        position = token.end()
        if token[0] == CDATA_OPEN:
            end = text.find(CDATA_CLOSE, position)
            if end < 0:
                break
            parts += [text[raw_from : token.start()], text[position:end]]
            raw_from = position = end + len(CDATA_CLOSE)
        elif not element:
            if token[0] == "</iap>":
                return None
            if not token[1] and token[2] not in unclosed:
                element, opened_at, raw_from, parts = token[2], position, position, []
        elif token[1] and token[2] == element:
            found.setdefault(element, "".join([*parts, text[raw_from : token.start()]]))
            element = ""
    if not element:
        return None
    unclosed.add(element)
    return opened_at


def _escape(value: str) -> str:
    value = value.replace("&", "&amp;").replace('"', "&quot;")
    return value.replace("<", "&lt;").replace(">", "&gt;")


def _unescape(value: str) -> str:
    # The ampersand last, or `&amp;lt;` would become `<`.
    value = value.replace("&quot;", '"').replace("&lt;", "<").replace("&gt;", ">")
    return value.replace("&amp;", "&")
