"""One question to the daemon, answered with its JSON or raised as the error it names.

Light enough for `send`: nothing but the hot client is imported, unless the environment does not
get us in. Only then is `iapeer.toml` read, which may name another socket or hold the bearer.
"""
# pathlib costs more than the whole call; os.path is enough here.

from __future__ import annotations

import os

from iapeer.client import hot
from iapeer.core import env
from iapeer.core.errors import DaemonDown, IapeerError, InvalidInput

TYPE_CHECKING = False  # typing costs `send` 3 ms; a type checker takes this name for true
if TYPE_CHECKING:
    from typing import Any

ANSWER_TIMEOUT_S = 10.0
"""Longest wait for an answer that needs no session to come up."""

_NOBODY = (FileNotFoundError, ConnectionRefusedError)
"""How a socket says that nothing was asked of anybody: asking again is safe."""


def ask(
    method: str, path: str, body: dict[str, Any] | None = None, timeout_s: float = ANSWER_TIMEOUT_S
) -> dict[str, Any]:
    """Return the daemon's answer.

    Raises DaemonDown when none runs on this root (nothing was asked then), else IapeerError:
    with the daemon's own code, message and hint, or `no_answer` when it may have done its part.
    """

    def once(bearer: str | None, socket_path: str) -> tuple[int, object]:
        headers = {"X-IAPeer-Entrance": "cli", **hot.token_header(os.environ)}
        if bearer:
            headers["Authorization"] = f"Bearer {bearer}"
        return hot.request(
            method, path, body, socket_path=socket_path, headers=headers, timeout_s=timeout_s
        )

    socket_path = hot.socket_path(os.environ)
    try:
        try:
            status, answer = once(None, socket_path)
        except hot.DaemonUnreachable as error:
            if not isinstance(error.__cause__, _NOBODY) or not _has_file():
                raise
            status, answer = once(*_by_file())
        if status == 401 and _has_file():
            status, answer = once(*_by_file())
    except hot.DaemonUnreachable as error:
        raise _unreachable(error, timeout_s) from None
    except hot.BadAnswer as error:
        raise IapeerError(
            f"the daemon's answer makes no sense: {error}", code="no_answer"
        ) from None
    if status < 400 and isinstance(answer, dict):
        return answer
    raise _refused(status, answer)


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


def _root() -> str:
    return os.environ.get(env.ROOT) or os.path.join(os.environ.get(env.HOME, ""), ".iapeer")


def _has_file() -> bool:
    return os.path.exists(os.path.join(_root(), "iapeer.toml"))


def _by_file() -> tuple[str, str]:
    """Return bearer and socket with the settings file counted in. Raises ConfigError."""
    from .context import load_settings

    settings = load_settings()
    return settings.bearer_token, str(settings.daemon_socket)


def _unreachable(error: hot.DaemonUnreachable, timeout_s: float) -> IapeerError:
    cause = error.__cause__
    if isinstance(cause, _NOBODY):
        return DaemonDown(f"no daemon is running on {_root()}", hint="start it: iapeer daemon")
    if isinstance(cause, PermissionError):
        return IapeerError(
            f"the daemon on {_root()} belongs to another account",
            hint=f"use a root of your own: {env.ROOT}",
            code="foreign_account",
        )
    if isinstance(cause, TimeoutError):
        return IapeerError(
            f"the daemon did not answer within {timeout_s:g} s; it may still do what was asked",
            hint="iapeer status tells how it is; a send with the same --key is safe to repeat",
            code="no_answer",
        )
    return IapeerError(f"{error}; what was asked may have been done", code="no_answer")


def _refused(status: int, answer: object) -> IapeerError:
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict):
        return IapeerError(f"the daemon answered with status {status} and no reason")
    return IapeerError(
        str(error.get("message") or f"refused with status {status}"),
        hint=str(error.get("hint") or ""),
        code=str(error.get("code") or IapeerError.code),
    )
