"""Checks of turns: what comes into a running one, what a person types, how turns end."""

from __future__ import annotations

import time

from iapeer.runtimes.spec import RuntimeSpec

from .given import ModelGiven
from .outcome import CheckFailed, NotApplicable, require
from .simulation import send, shell_call, slow
from .stage import ANN, DAN, LONG_S, SLOW_S, STEP_S, TOOL_S, Stage

_DRAFT = "half a thought"
_DONE = "tool-is-done"
_MCP = "the MCP server in the manifest's files: URL, X-IAPeer-Identity and X-IAPeer-Token"


def turn_end(stage: Stage) -> str:
    """The end of each turn so far is known and good."""
    if not stage.spec.tells_turns:
        raise NotApplicable("nothing in its manifest tells the end of a turn")
    ends = [stage.ended(message) for message in stage.sent.values()]
    bad = sorted({end for end in ends if end != "done"})
    require(not bad, f"ended as {', '.join(bad)}", "evidence.records or evidence.hooks: turn_end")
    return f"{len(ends)} of {len(ends)} done"


def mid_turn(stage: Stage) -> str:
    """A message into a running turn waits, and cuts nothing off."""
    running = stage.send(ANN, f"take your time\n{slow(SLOW_S)}\nEND")
    stage.seen(running)
    return _join(stage, running, "came in while the model spoke\nEND")


def mid_tool(stage: Stage) -> str:
    """A message into a running tool call waits, and does not end the call."""
    line = _shell_line(stage)
    running = stage.send(ANN, f"use your tool\n{line}\nEND")
    stage.seen(running)
    figure = _join(stage, running, "came in while a tool ran\nEND", TOOL_S)
    finished = stage.model is not None and any(
        _DONE in text for request in stage.model.requests for text in request.tool_results
    )
    require(finished, "the tool's result is missing: the call was cut off")
    return figure


def draft(stage: Stage) -> str:
    """What a person has typed stays theirs: a message waits for it or passes it by."""
    stage.type(ANN, _DRAFT)
    stage.wait(lambda: _DRAFT in stage.screen(ANN), "the typed text is on the screen")
    message = stage.send(ANN, "while a person types\nEND")

    def told() -> str:
        state = stage.trace(message)
        passed = state["state"] in {"seen", "landed"}
        return "passed" if passed else "held" if state["reason"] == "composer" else ""

    try:
        how = stage.wait(told, "it is held for the composer or passes it by")
        time.sleep(0.5)  # a paste into the draft would show a moment later
        untouched = _DRAFT in stage.screen(ANN)
    finally:
        stage.press(ANN, *["BSpace"] * len(_DRAFT))
    hint = "screen.prompt_glyphs and screen.ghost_sgr tell where a person types"
    require(untouched, "the draft is gone from the composer", hint)
    stage.ended(message)
    require(not stage.was_given(_DRAFT), "the draft was sent off with the message", hint)
    return "held until the composer was empty" if how == "held" else "passed by, the draft stayed"


def tool_call(stage: Stage) -> str:
    """The program calls `send_to_peer`, and the daemon knows who it is."""
    word = f"from-{stage.spec.id}-to-dan"
    line = send(DAN, f"END {word}", stage.main_request())
    message = stage.send(ANN, f"tell dan\n{line}\nEND")
    stage.seen(message)
    sender = stage.wait(
        lambda: stage.sender_of(DAN, word), "the message that the model sends arrives", hint=_MCP
    )
    require(sender == stage.address(ANN), f"it came from {sender}", _MCP)
    stage.ended(message)
    found = ", after a search for the tool" if line.startswith("FIND") else ""
    return f"dan got it from {sender}{found}"


def interrupt(stage: Stage) -> str:
    """`iapeer interrupt` ends the turn and leaves the session able to work."""
    if not (stage.spec.control.interrupt or stage.spec.has_channel):
        raise NotApplicable("control.interrupt is empty")
    running = stage.send(ANN, f"a long story\n{slow(LONG_S)}\nEND")
    stage.seen(running)
    time.sleep(0.5)  # in the middle of the answer, not before it
    began = time.monotonic()
    _order(stage, "interrupt")
    end = stage.ended(running)
    took = time.monotonic() - began
    require(end in {"interrupted", ""}, f"the turn ended as {end}", "evidence: turn_end")
    stage.ended(stage.send(ANN, "and on with it\nEND"))
    return f"{end or 'stopped'} after {took:.1f} s, the next message was read"


def compact(stage: Stage) -> str:
    """`iapeer compact` returns when the program itself says that it is done."""
    if not tells_compaction(stage.spec):
        raise NotApplicable("nothing in its manifest tells that a compaction is done")
    began = time.monotonic()
    _order(stage, "compact")
    took = time.monotonic() - began
    stage.ended(stage.send(ANN, "what is left?\nEND"))
    return f"done after {took:.1f} s, the next message was read"


def tells_compaction(spec: RuntimeSpec) -> bool:
    """Tell whether a compaction can be ordered and is proven."""
    evidence = spec.evidence
    told = "compacted" in evidence.hooks.values()
    told = told or any(record.kind == "compacted" for record in evidence.records)
    return spec.has_channel or bool(spec.control.compact and told)


def _join(stage: Stage, running: str, body: str, limit_s: float = STEP_S) -> str:
    """Send into a running turn; return how it was taken up."""
    second = stage.send(ANN, body)
    taken = stage.wait(lambda: _taken(stage, second), "it is queued or held", limit_s)
    turns = stage.trace(running)["turns"]
    early = bool(turns) and not turns[-1]["end"]
    end = stage.ended(running, limit_s)
    require(end in {"done", ""}, f"the running turn ended as {end}: it was cut off")
    stage.ended(second, limit_s)
    if stage.given is not None:
        texts = stage.wait(lambda: stage.texts(second), "its text is in a request")
        require(len(texts) == 1, f"it was given {len(texts)} times")
    require(early or not stage.spec.tells_turns, "the turn was over too soon to tell anything")
    return f"{taken}, read later; the running turn ended as {end or 'usual'}"


def _taken(stage: Stage, message: str) -> str:
    told = stage.trace(message)
    words = {"held": "held back", "landed": "queued by the program", "seen": "taken in at once"}
    return words.get(str(told["state"]), "")


def _shell_line(stage: Stage) -> str:
    if not isinstance(stage.given, ModelGiven):
        raise NotApplicable("it has no model that could call a tool of its own")
    request = stage.main_request()
    # Newer programs refuse a plain `sleep 2`.
    command = "for i in 1 2 3 4 5 6 7 8; do sleep 0.25; done; echo " + _DONE
    line = shell_call(request, command) if request is not None else None
    if line is None:
        raise NotApplicable("it offers no tool that runs a command")
    return line


def _order(stage: Stage, verb: str) -> None:
    """Give an order as a person would. Raises CheckFailed when it is refused."""
    done = stage.daemon.run(verb, ANN, expect=None)
    if done.returncode != 0:
        message, _, hint = done.stderr.strip().partition("\nhint: ")
        raise CheckFailed(message, hint)
