"""How a check ends, and what a check is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .stage import Stage


class CheckFailed(Exception):
    """The capability is not there: `figure` says what was seen instead, `hint` where to look.

    `peer` is whose screen tells more; the check's own by default.
    """

    def __init__(self, figure: str, hint: str = "", peer: str = "") -> None:
        super().__init__(figure)
        self.figure = figure
        self.hint = hint
        self.peer = peer


class NotApplicable(Exception):
    """The check does not apply to this runtime; the text says why."""


@dataclass(frozen=True)
class Check:
    """One row of the table; `run` returns its figure, or raises one of the two above."""

    name: str
    title: str
    run: Callable[[Stage], str]
    peer: str
    """Whose session it plays in: that one is quiet before, and made anew after a failure."""


def require(holds: object, otherwise: str, hint: str = "") -> None:
    """Raise CheckFailed unless it holds."""
    if not holds:
        raise CheckFailed(otherwise, hint)
