"""How a request says what it wants: its peer, its runtime, its body; checked, or refused."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from starlette.requests import Request

from iapeer.core.errors import InvalidInput
from iapeer.core.ids import is_message_id
from iapeer.core.names import is_valid_name, is_valid_runtime
from iapeer.core.text import one_line
from iapeer.daemon.auth import check_operator

Body = TypeVar("Body")


class RuntimeBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of the verbs of a peer; no runtime means all of them, or the one the verb picks."""

    runtime: str | None = None


def target(request: Request) -> tuple[str, str | None]:
    """Return the peer of the path and the runtime of the body, for the operator only.

    Raises CallerError, InvalidInput.
    """
    check_operator(request)
    peer = peer_of(request)
    runtime = decode(request, RuntimeBody).runtime
    if runtime is not None and not is_valid_runtime(runtime):
        raise InvalidInput(f"invalid runtime {one_line(runtime, 80)!r}")
    return peer, runtime


def peer_of(request: Request) -> str:
    """Return the peer of the path. Raises InvalidInput."""
    return checked_name(request.path_params["peer"])


def checked_id(message_id: str) -> str:
    """Return a message id that can be one. Raises InvalidInput."""
    if not is_message_id(message_id):
        raise InvalidInput(
            f"{one_line(message_id, 80)!r} is no message id", hint="send prints it: 12 of a-z, 2-7"
        )
    return message_id


def checked_name(name: str) -> str:
    """Return a personality that can be one. Raises InvalidInput."""
    if not is_valid_name(name):
        raise InvalidInput(
            f"invalid personality {one_line(name, 80)!r}",
            hint="a letter, then up to 31 of a-z, 0-9 and hyphen",
        )
    return name


def decode(request: Request, kind: type[Body]) -> Body:
    """Return the body, which the gate has read, as `kind`; no body is `{}`.

    Raises InvalidInput.
    """
    state = request.scope["state"]
    raw: bytes = state["body"]
    media = state["headers"].get("content-type", "").partition(";")[0].strip().lower()
    if raw and media != "application/json":
        raise InvalidInput("the body must be application/json", code="media_type")
    try:
        return msgspec.json.decode(raw or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"bad request body: {one_line(str(error), 200)}") from None
