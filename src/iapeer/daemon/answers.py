"""How the edges say no: errors as HTTP statuses and bodies, and the lines they leave in the log.

No token and no message body passes through here: errors are made of names and limits.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

from iapeer.core import errors
from iapeer.core.errors import IapeerError
from iapeer.core.logfmt import format_line

UNAUTHORIZED = -32001
INVALID_REQUEST = -32600
INTERNAL_ERROR = -32603

_LOG = logging.getLogger("iapeer.daemon")

_BY_CODE = {
    "timeout": 408,
    "body_too_large": 413,
    "media_type": 415,
    "wrong_method": 405,
    "unknown_path": 404,
}

_BY_CLASS: dict[type[BaseException], int] = {
    errors.InvalidInput: 400,
    errors.Unauthorized: 401,
    errors.CallerError: 403,
    errors.PeerNotFound: 404,
    errors.RuntimeUnknown: 404,
    errors.PeerExists: 409,
    errors.PeerLive: 409,
    errors.ControlRefused: 409,
    errors.SendRefused: 409,
    errors.LockBusy: 503,
    errors.SessionGone: 503,
    errors.DaemonDown: 503,
    IapeerError: 500,
}


def status_of(error: IapeerError) -> int:
    """Return the HTTP status of an error: by its code, else by its class.

    A refusal that waiting cures is 429.
    """
    if error.code in _BY_CODE:
        return _BY_CODE[error.code]
    if isinstance(error, errors.SendRefused) and error.retry_after_s is not None:
        return 429
    return next(_BY_CLASS[kind] for kind in type(error).__mro__ if kind in _BY_CLASS)


def error_body(error: IapeerError) -> dict[str, Any]:
    """Return `{"ok": false, "error": {code, message, hint, retry_after_s}}`."""
    return {
        "ok": False,
        "error": {
            "code": error.code,
            "message": error.message,
            "hint": error.hint,
            "retry_after_s": error.retry_after_s,
        },
    }


def json_response(
    body: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a JSON response that no cache keeps."""
    return Response(
        msgspec.json.encode(body),
        status,
        {"cache-control": "no-store", **(headers or {})},
        "application/json",
    )


def error_response(
    error: IapeerError, *, rpc: bool = False, headers: Mapping[str, str] | None = None
) -> Response:
    """Return an error as the API says it, or with `rpc` as JSON-RPC without an id."""
    status = status_of(error)
    extra = dict(headers or {})
    if status == 401:
        extra["www-authenticate"] = "Bearer"
    if error.retry_after_s is not None:
        extra["retry-after"] = str(max(1, round(error.retry_after_s)))
    body = _rpc_body(error, status) if rpc else error_body(error)
    return json_response(body, status, extra)


def internal_error() -> IapeerError:
    """Return what a caller is told about a defect of ours; the log has the rest."""
    return IapeerError("internal error", hint="see the daemon's log", code="internal")


def log_refusal(error: IapeerError, **facts: object) -> None:
    """Leave one line about a request that was turned away at the door."""
    pairs = {"event": "refused", "code": error.code, "status": status_of(error), **facts}
    _LOG.warning(format_line((*pairs.items(), ("reason", error.message))))


def log_call(*, loud: bool, **facts: object) -> None:
    """Leave one line about a call, accepted or not; shown only when `loud`."""
    level = logging.INFO if loud else logging.DEBUG
    if _LOG.isEnabledFor(level):
        _LOG.log(level, format_line((("event", "call"), *facts.items())))


def log_crash(what: str, error: BaseException) -> None:
    """Leave kind and place of a defect; never the error's own text, which may quote a body."""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    where = " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames))
    pairs = (("event", "defect"), ("what", what), ("error", type(error).__name__), ("at", where))
    _LOG.error(format_line(pairs))


def _rpc_body(error: IapeerError, status: int) -> dict[str, Any]:
    if isinstance(error, errors.Unauthorized):
        code = UNAUTHORIZED
    else:
        code = INVALID_REQUEST if status < 500 else INTERNAL_ERROR
    return {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": error.message}}
