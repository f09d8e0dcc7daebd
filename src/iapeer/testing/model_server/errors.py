"""The error bodies of both vendors, by HTTP status."""

from __future__ import annotations

from typing import Any

import msgspec

from .asks import Protocol

_ANTHROPIC = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}

_OPENAI: dict[int, tuple[str, str | None]] = {
    401: ("invalid_request_error", "invalid_api_key"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
    503: ("server_error", "server_is_overloaded"),
    529: ("server_error", "server_is_overloaded"),
}


class ErrorKind(msgspec.Struct, frozen=True):
    """What one vendor calls an error."""

    type: str
    code: str | None
    message: str
    anthropic: bool

    @property
    def body(self) -> dict[str, Any]:
        """The `error` member, as it also stands in a stream."""
        if self.anthropic:
            return {"type": self.type, "message": self.message}
        return {"message": self.message, "type": self.type, "param": None, "code": self.code}

    @property
    def document(self) -> dict[str, Any]:
        """The body of the HTTP answer."""
        return {"type": "error", "error": self.body} if self.anthropic else {"error": self.body}


def kind_of(status: int, protocol: Protocol | None, message: str = "") -> ErrorKind:
    """Return what the vendor of `protocol` (OpenAI without one) calls this status."""
    plain = "api_error" if status >= 500 else "invalid_request_error"
    if protocol == "messages":
        kind = _ANTHROPIC.get(status, plain)
        return ErrorKind(kind, None, message or kind, anthropic=True)
    plain = "server_error" if status >= 500 else plain
    name, code = _OPENAI.get(status, (plain, "server_error" if status >= 500 else None))
    return ErrorKind(name, code, message or name, anthropic=False)


_WINDOW_MINUTES = 300


def used_up(now: float, resets_in_s: float, message: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return body and headers of OpenAI's 429 for a plan whose quota is used up.

    Measured: Codex 0.169.0 takes the time from the headers.
    """
    at = round(now + resets_in_s)
    error = {"type": "usage_limit_reached", "message": message, "resets_at": at}
    window = {"used-percent": 100, "window-minutes": _WINDOW_MINUTES, "reset-at": at}
    headers = {f"x-codex-primary-{name}": str(value) for name, value in window.items()}
    return {"error": error}, headers
