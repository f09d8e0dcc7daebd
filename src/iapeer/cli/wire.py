"""One question to the daemon, answered with its JSON or raised as the error it names.

Light enough for `send`: nothing but the hot client is imported.
"""

from __future__ import annotations

import os

from ..client import hot
from ..core import env
from ..core.errors import DaemonDown, IapeerError, InvalidInput

TYPE_CHECKING = False  # typing costs `send` 3 ms; a type checker takes this name for true
if TYPE_CHECKING:
    from typing import Any

ANSWER_TIMEOUT_S = 10.0
"""Longest wait for an answer that needs no session to come up."""


def ask(
    method: str, path: str, body: dict[str, Any] | None = None, timeout_s: float = ANSWER_TIMEOUT_S
) -> dict[str, Any]:
    """Return the daemon's answer.

    Raises DaemonDown when none answers on this root, else IapeerError with the daemon's own code,
    message and hint.
    """
    status, answer = hot.request(method, path, body, timeout_s=timeout_s)
    if status < 400 and isinstance(answer, dict):
        return answer
    raise _told(status, answer)


def peer_path(personality: str, verb: str) -> str:
    """Return the path of a verb on a peer. Raises InvalidInput for what can't be a name."""
    return f"/api/v1/peers/{_segment(personality, 'peer name')}/{verb}"


def message_path(message_id: str) -> str:
    """Return the path of a message. Raises InvalidInput for what can't be an id."""
    return f"/api/v1/messages/{_segment(message_id, 'message id')}"


def _segment(text: str, what: str) -> str:
    """Refuse what would change the path it is put in; whether it exists is the daemon's to say."""
    if not text.isascii() or not text.replace("-", "").isalnum():
        raise InvalidInput(f"{text!r} is no {what}")
    return text


def root() -> str:
    """Return the root the environment names, for people to read."""
    return os.environ.get(env.ROOT) or os.path.join(os.environ.get(env.HOME, "~"), ".iapeer")


def _told(status: int, answer: object) -> IapeerError:
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict):
        return IapeerError(f"the daemon answered with status {status} and no reason")
    return IapeerError(
        str(error.get("message") or f"refused with status {status}"),
        hint=str(error.get("hint") or ""),
        code=str(error.get("code") or IapeerError.code),
    )
