from __future__ import annotations

import json
import logging

import pytest

from iapeer.core import errors
from iapeer.core.errors import IapeerError
from iapeer.daemon.answers import (
    error_response,
    internal_error,
    log_crash,
    log_refusal,
    status_of,
)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InvalidInput("x"), 400),
        (errors.EnvelopeError("x"), 400),
        (errors.InvalidInput("x", code="body_too_large"), 413),
        (errors.Unauthorized("x"), 401),
        (errors.CallerError("x", code="foreign_host"), 403),
        (errors.PeerNotFound("x"), 404),
        (errors.PeerLive("x"), 409),
        (errors.SendRefused("x"), 409),
        (errors.SendRefused("x", retry_after_s=2), 429),
        (errors.LockBusy("x"), 503),
        (errors.StorageError("x"), 500),
        (errors.ManifestError("x"), 500),
        (internal_error(), 500),
    ],
)
def test_every_error_has_a_status(error: IapeerError, status: int) -> None:
    assert status_of(error) == status


def test_no_error_class_is_without_a_status() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert len(kinds) > 20
    for kind in kinds:
        if issubclass(kind, IapeerError):
            assert 400 <= status_of(kind("x")) < 600


@pytest.mark.requirement("daemon:bearer")
def test_a_401_says_how_and_a_retry_says_when() -> None:
    refused = error_response(errors.Unauthorized("unauthorized"), rpc=True)
    assert refused.headers["www-authenticate"] == "Bearer"
    assert json.loads(bytes(refused.body)) == {
        "jsonrpc": "2.0",
        "id": None,
        "error": {"code": -32001, "message": "unauthorized"},
    }
    later = error_response(errors.SendRefused("x", retry_after_s=0.2))
    assert later.headers["retry-after"] == "1"
    broken = json.loads(bytes(error_response(internal_error(), rpc=True).body))
    assert broken["error"] == {"code": -32603, "message": "internal error"}


def int_of_a_body() -> None:
    raise RuntimeError("a body")


def test_log_lines_are_one_line_and_never_quote_a_defects_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(RuntimeError) as caught:
        int_of_a_body()
    log_crash("here", caught.value)
    log_refusal(errors.CallerError("no\nway"), path="/a\r\nfake=1")
    crash, refusal = (record.getMessage() for record in caplog.records)
    assert "RuntimeError" in crash
    assert "a body" not in crash
    assert "\n" not in refusal
    assert "\r" not in refusal
