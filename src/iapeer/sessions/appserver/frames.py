"""The members of the app-server's records that are read here; all others are ignored.

Names and shapes as `codex app-server generate-json-schema --experimental` of 0.169.0 gives them.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Refusal(msgspec.Struct, frozen=True):
    """Why a request was refused (JSON-RPC error object)."""

    code: int = 0
    message: str = ""


class Frame(msgspec.Struct, frozen=True):
    """One text frame: a reply (`id`, no `method`), a notification, or a request to us (both)."""

    id: int | str | None = None
    method: str = ""
    params: msgspec.Raw = msgspec.Raw(b"null")
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: Refusal | None = None


class Item(msgspec.Struct, frozen=True, rename="camel"):
    """One entry of a conversation; `client_id` is what the sender of a user message called it."""

    type: str
    id: str = ""
    client_id: str | None = None


class TurnError(msgspec.Struct, frozen=True, rename="camel"):
    """Why a turn failed; `codex_error_info` is a word or an object with one member."""

    message: str = ""
    codex_error_info: Any = None


class Turn(msgspec.Struct, frozen=True, rename="camel"):
    """One turn; times are whole seconds since the epoch."""

    id: str
    status: str
    """`inProgress`, `completed`, `interrupted` or `failed`."""
    items: tuple[Item, ...] = ()
    error: TurnError | None = None
    started_at: int | None = None
    completed_at: int | None = None


class ThreadStatus(msgspec.Struct, frozen=True):
    """`notLoaded`, `idle`, `systemError` (idle after a failure) or `active`."""

    type: str


class Thread(msgspec.Struct, frozen=True, rename="camel"):
    """One conversation; its id is a UUIDv7, so ids sort by birth."""

    id: str
    ephemeral: bool = False
    parent_thread_id: str | None = None
    thread_source: str | None = None
    path: str | None = None
    status: ThreadStatus = ThreadStatus("idle")

    @property
    def is_main(self) -> bool:
        """Whether a person or we talk in it: no subagent's, title's or other helper's thread."""
        is_users = self.thread_source in {None, "user"}
        return is_users and not self.ephemeral and self.parent_thread_id is None


class ThreadTold(msgspec.Struct, frozen=True):
    """`thread/started`, and the replies to `thread/read` and `thread/resume`."""

    thread: Thread


class StatusTold(msgspec.Struct, frozen=True, rename="camel"):
    """`thread/status/changed`."""

    thread_id: str
    status: ThreadStatus


class TurnTold(msgspec.Struct, frozen=True, rename="camel"):
    """`turn/started` and `turn/completed`."""

    thread_id: str
    turn: Turn


class ItemTold(msgspec.Struct, frozen=True, rename="camel"):
    """`item/completed`."""

    thread_id: str
    turn_id: str
    item: Item


class ThreadNamed(msgspec.Struct, frozen=True, rename="camel"):
    """`thread/closed` and others that name a thread only."""

    thread_id: str


class Window(msgspec.Struct, frozen=True, rename="camel"):
    """One quota window; `resets_at` in seconds since the epoch."""

    used_percent: float
    resets_at: float | None = None


class Limits(msgspec.Struct, frozen=True):
    """Both quota windows, as far as the vendor told."""

    primary: Window | None = None
    secondary: Window | None = None


class LimitsTold(msgspec.Struct, frozen=True, rename="camel"):
    """`account/rateLimits/updated`."""

    rate_limits: Limits


class TurnPage(msgspec.Struct, frozen=True):
    """The reply to `thread/turns/list`."""

    data: tuple[Turn, ...] = ()


class Queued(msgspec.Struct, frozen=True, rename="camel"):
    """One submission that waits for its turn."""

    id: str
    client_user_message_id: str


class QueuePage(msgspec.Struct, frozen=True):
    """The reply to `thread/queue/list`."""

    data: tuple[Queued, ...] = ()


class LoadedPage(msgspec.Struct, frozen=True):
    """The reply to `thread/loaded/list`: ids of threads in memory."""

    data: tuple[str, ...] = ()
