"""Checks of bad days: a killed program, a failing model, a stop in between, nothing left over."""

from __future__ import annotations

import contextlib
import time

import psutil

from .given import ModelGiven, body_in, mark_of
from .outcome import NotApplicable, require
from .simulation import API_ERROR, send, slow
from .stage import ANN, BEN, DAN, HOLD_S, KILLED_S, STEP_S, Stage
from .texts import BOOT_S

_TOPIC = "the same affair"
_ERROR_S = 30.0
"""Programs that try again take their time."""
_GONE_S = 5.0
_HOLDS = {"quota", "api_error"}


def killed(stage: Stage) -> str:
    """SIGKILL in the middle of a turn, with a message in the program's own queue."""
    running = stage.send(ANN, f"a turn to die in\n{slow(KILLED_S)}\nEND")
    stage.seen(running)
    queued = stage.send(ANN, "in the queue of the dead\nEND")
    before = stage.wait(lambda: _resting(stage, queued), "it is queued or held")
    for process in stage.processes(ANN):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    require(before != "seen", "it was read before the program could be killed")
    told = stage.seen(queued, BOOT_S)
    stage.ended(queued, BOOT_S)
    if stage.given is None:
        return f"{before} at its death, seen in the next session"
    texts = stage.wait(lambda: stage.texts(queued), "its text is in a request")
    require(len(texts) == 1, f"it was given {len(texts)} times")
    must_be_marked = told["dup"] and stage.spec.queue == "volatile"
    head = texts[0].partition(mark_of(queued))[2].partition("\n")[0]
    require(not must_be_marked or "dup=" in head, "it came a second time without its mark")
    marked = "marked" if "dup=" in head else "unmarked: nobody had been given it"
    if told["dup"] and "dup=" not in head:
        marked = "by the program's own durable queue"
    return f"{before} at its death, then given once, {marked}"


def api_error(stage: Stage) -> str:
    """A model that fails: the turn says so, new messages wait, then come."""
    if not stage.spec.tells_turns:
        raise NotApplicable("nothing in its manifest tells the end of a turn")
    running = stage.send(BEN, f"the model will fail\n{API_ERROR}\nEND")
    end = stage.ended(running, _ERROR_S)
    require(end == "api_error", f"the turn ended as {end}", "evidence: turn_end, turn_failed")
    sent_at = time.monotonic()
    waiting = stage.send(BEN, "after the failure\nEND")
    reason = stage.wait(lambda: str(stage.trace(waiting)["reason"]), "the new message is held")
    require(reason in _HOLDS, f"the new message is held for: {reason}")
    stage.ended(waiting, HOLD_S + STEP_S)
    texts = stage.texts(running) if stage.given is not None else [""]
    require(len(texts) == 1, f"the failed message was given {len(texts)} times")
    return f"api_error; new ones held as {reason} for {time.monotonic() - sent_at:.1f} s"


def resume(stage: Stage) -> str:
    """After a stop, a message on the same topic goes on with the same conversation."""
    if not stage.spec.can_resume:
        raise NotApplicable("launch.resume_argv is empty: every session is a fresh one")
    earlier = stage.send(BEN, "remember the blue teapot\nEND", topic=_TOPIC)
    stage.ended(earlier)
    stage.daemon.run("stop", BEN)
    stage.daemon.run("start", BEN)
    word = f"resumed-{stage.spec.id}"
    line = send(DAN, f"END {word}", stage.main_request())
    later = stage.send(BEN, f"what was blue?\n{line}\nEND", topic=_TOPIC)
    stage.ended(later, BOOT_S)
    mode = stage.session(BEN).mode
    require(mode == "resume", f"the next session was {mode}", "launch.resume_argv")
    stage.wait(lambda: stage.sender_of(DAN, word), "its tool works as before")
    given = stage.given
    if not isinstance(given, ModelGiven):
        return "resumed, its tools work"
    texts = stage.wait(lambda: given.newest(later), "its text is in a request")
    known = any("blue teapot" in body_in(text, earlier) for text in texts)
    require(known, "the earlier turn is not in the request", "is {session_id} in resume_argv?")
    return f"resumed, {len(texts)} texts in the request, its tools work"


def nothing_left(stage: Stage) -> str:
    """`iapeer stop --all` ends every process of the peers."""
    before = sum(len(stage.processes(peer)) for peer in (ANN, BEN))
    began = time.monotonic()
    stage.daemon.run("stop", "--all")

    def left() -> list[str]:
        return [_described(p) for peer in (ANN, BEN) for p in stage.processes(peer)]

    end = time.monotonic() + _GONE_S
    while (found := left()) and time.monotonic() < end:
        time.sleep(0.1)
    hint = "the program starts something that outlives its terminal"
    require(not found, f"{len(found)} processes are left: {'; '.join(found)}", hint)
    require(before, "there was nothing to end: the sessions had ended by themselves")
    return f"{before} processes ended in {time.monotonic() - began:.1f} s, none left"


def _resting(stage: Stage, message: str) -> str:
    state = str(stage.trace(message)["state"])
    return state if state in {"held", "landed", "seen"} else ""


def _described(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline())[:80]}"
    except psutil.Error:
        return f"{process.pid}"
