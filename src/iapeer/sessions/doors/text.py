"""What a reader is given: a pure function of the message, the reader's folder and its mentions."""

from __future__ import annotations

import os
import re
from datetime import datetime
from pathlib import Path

import msgspec

from iapeer.core.envelope import Envelope, encode, render_for_agent
from iapeer.core.text import safe_text
from iapeer.sessions.model import TmuxSession

WORD_JOINER = "\u2060"
"""Put after an `@` that would pull a file in: invisible, and no part of any file's name."""

_MENTION = re.compile(r"(?<!\S)@(?:\"([^\"\n]+)\"|((?:\\ |\S)+))")
_AFTER_A_NAME = ".,;:!?)]}'\""


def agent_text(envelope: Envelope, now: datetime) -> str:
    """Return what a terminal agent is given: the compact form, free of control characters."""
    return render_for_agent(encode(safe_envelope(envelope)), now)


def handed_text(session: TmuxSession, envelope: Envelope) -> str:
    """Return what this session is given: its preface, then the compact form.

    Mentions of files that the reader's program would attach are made plain text.
    """
    if session.spec.submit.mentions:
        body = defuse_mentions(envelope.body, session.cwd)
        envelope = msgspec.structs.replace(envelope, body=body)
    text = agent_text(envelope, datetime.now().astimezone())
    return f"{session.preface}\n\n{text}" if session.preface else text


def wire_text(envelope: Envelope) -> str:
    """Return what a router is given that reads raw lines: the wire form, as safe as the other."""
    return encode(safe_envelope(envelope))


def safe_envelope(envelope: Envelope) -> Envelope:
    """Return the envelope with every text a peer chose made safe for a terminal.

    Before the markup is made, never after: what is dropped from a finished envelope can join
    `]` and `]>`, or `</m` and `sg>`, and a body would end its own envelope and begin another's.
    """
    topic = envelope.topic
    return msgspec.structs.replace(
        envelope,
        body=safe_text(envelope.body).text,
        topic=None if topic is None else safe_text(topic).text,
        attachments=tuple(safe_text(path).text for path in envelope.attachments),
    )


def defuse_mentions(body: str, cwd: Path) -> str:
    """Return the body with U+2060 after each `@` that begins a word and names an existing path.

    Real CLIs read such a file and attach its content (measured: Claude Code 2.1.197), so that a
    sender could make its reader open what the sender can't. Other `@` stay as they are.
    """

    def defuse(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        return found[0].replace("@", f"@{WORD_JOINER}", 1) if _names_a_path(name, cwd) else found[0]

    return _MENTION.sub(defuse, body) if "@" in body else body


def _names_a_path(name: str, cwd: Path) -> bool:
    """Whether a reader could take it for a path; line ranges and punctuation may follow."""
    plain = name.split("#", 1)[0]
    candidates = {name, plain, plain.rstrip(_AFTER_A_NAME)} - {""}
    return any(_exists(candidate.replace("\\ ", " "), cwd) for candidate in candidates)


def _exists(name: str, cwd: Path) -> bool:
    path = os.path.join(cwd, os.path.expanduser(name))  # noqa: PTH111, PTH118 - any text
    try:
        return os.path.lexists(path)
    except ValueError:
        return False
