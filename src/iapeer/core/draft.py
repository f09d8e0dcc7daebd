"""What a sender asks to be sent, and the checks it must pass before anything is looked up."""

from __future__ import annotations

import msgspec

from iapeer.core.errors import InvalidInput
from iapeer.core.names import is_valid_name, is_valid_runtime
from iapeer.core.text import one_line

MESSAGE_MAX = 16_000
"""Longest message, in code points."""

TOPIC_MAX = 200
"""Longest topic, in code points, before trimming."""

ATTACHMENTS_MAX = 20
"""Most attachments of one message."""

PATH_MAX = 4096
"""Longest attachment path, in code points; Linux opens none of more than 4095 bytes."""

_SHOWN = 80


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A message as asked for, unchecked: `to` is a personality, attachments are local paths."""

    to: str
    message: str
    runtime: str | None = None
    topic: str | None = None
    attachments: tuple[str, ...] = ()


def validate(draft: Draft) -> None:
    """Check a draft, in the contract's order; the first fault is the one reported.

    Lengths are code points (the original counts UTF-16 units, so ours lets a message of
    astral characters be longer). Raises InvalidInput with the contract's keyword, the measured
    value and the limit; a path or a name is quoted cut, a message never.
    """
    _check_attachments(draft.attachments)
    _check_recipient(draft)
    if draft.topic is not None and len(draft.topic) > TOPIC_MAX:
        raise InvalidInput(
            f"topic exceeds {TOPIC_MAX} char limit (got {len(draft.topic)})",
            hint="shorten the topic; details belong in the message",
        )
    if len(draft.message) > MESSAGE_MAX:
        raise InvalidInput(
            f"message exceeds {MESSAGE_MAX} char limit (got {len(draft.message)})",
            hint="write the long part to a file and attach its path",
        )


def _check_attachments(paths: tuple[str, ...]) -> None:
    if not paths:
        return
    if len(paths) > ATTACHMENTS_MAX:
        raise InvalidInput(
            f"attachments exceeds {ATTACHMENTS_MAX} item limit (got {len(paths)})",
            hint="attach a folder, or send several messages",
        )
    # Drafts also come from decoded JSON, where the annotation is only a promise.
    items: tuple[object, ...] = paths
    for number, item in enumerate(items):
        if not isinstance(item, str) or not item.startswith("/"):
            raise InvalidInput(
                f"attachments must be absolute local paths (attachments[{number}] is "
                f"{_shown(item)})",
                hint='begin each path with "/"',
            )
    for number, path in enumerate(paths):
        if "\r" in path or "\n" in path:
            raise InvalidInput(
                f"attachment path must not contain newline (attachments[{number}] is "
                f"{_shown(path)})",
                hint="rename the file",
            )
        if len(path) > PATH_MAX:
            raise InvalidInput(
                f"attachment path exceeds {PATH_MAX} char limit (got {len(path)})",
                hint="attach a file with a shorter path",
            )


def _check_recipient(draft: Draft) -> None:
    if not draft.to or not draft.message:
        missing = "personality" if not draft.to else "message"
        raise InvalidInput(
            f'requires non-empty "personality" and "message" ("{missing}" is empty)',
            hint=f'give "{missing}"',
        )
    if not is_valid_name(draft.to):
        raise InvalidInput(
            f"invalid personality {_shown(draft.to)}",
            hint="a letter, then up to 31 of a-z, 0-9 and hyphen; no runtime prefix needed",
        )
    if draft.runtime is not None and not is_valid_runtime(draft.runtime):
        raise InvalidInput(
            f"invalid runtime {_shown(draft.runtime)}",
            hint="a letter, then up to 31 of a-z and 0-9; leave it out for the peer's default",
        )


def _shown(value: object) -> str:
    return f'"{one_line(value, _SHOWN)}"' if isinstance(value, str) else type(value).__name__
