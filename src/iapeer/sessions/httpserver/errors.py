"""What a request to a runtime's own server can come to, by what it may have done."""

from __future__ import annotations

from iapeer.core.errors import IapeerError


class NotReached(IapeerError):
    """Nobody was there to take the request: it has provably done nothing."""

    code = "not_reached"


class NoAnswer(IapeerError):
    """The request went out and its answer never came: it may have been carried out."""

    code = "no_answer"
