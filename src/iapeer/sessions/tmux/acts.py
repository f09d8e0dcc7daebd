"""What is done to a terminal: once, in one step of the server, and only while its program lives."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import msgspec

from iapeer.core.errors import TmuxError
from iapeer.sessions.tmux.command import Command, line, pane

_ACT = "@iap_act"


class Act(msgspec.Struct, frozen=True):
    """`commands` are run together; `instead` where the pane is dead or they were run already.

    `before` runs in any case, and nothing else if it fails.
    """

    commands: Sequence[Command]
    before: Sequence[Command] = ()
    instead: Sequence[Command] = ()


def act_commands(session: str, act: Act) -> list[Command]:
    """Return what to ask of the server; `was_done` reads the answer.

    `paste-buffer` into a dead pane crashes tmux 3.3a, so the guard is inside the server, where
    nothing can happen in between. An act is noted by its own random word in the same step: when
    the control client breaks and exec repeats the request, it runs once.
    """
    target = pane(session)
    word = secrets.token_hex(8)
    is_done = f"#{{==:#{{{_ACT}}},{word}}}"
    step = line(
        [
            ["copy-mode", "-q", "-t", target],
            ["set-option", "-t", target, _ACT, word],
            *act.commands,
            ["display-message", "-p", "done"],
        ]
    )
    told = ["display-message", "-p", "-t", target, f"#{{?{is_done},done,dead}}"]
    condition = f"#{{||:#{{pane_dead}},{is_done}}}"
    choice = ["if-shell", "-F", "-t", target, condition, line([told, *act.instead]), step]
    return [*act.before, choice]


def was_done(answer: list[str]) -> bool:
    """Tell whether an act was done, False: the pane was dead. Raises TmuxError for other words."""
    if answer not in (["done"], ["dead"]):
        raise TmuxError(f"tmux gave an answer that makes no sense: {answer!r}"[:300])
    return answer == ["done"]
