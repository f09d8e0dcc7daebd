"""Checks of the way in: booting, and whether a text arrives as it was sent, and as text."""

from __future__ import annotations

import re
from functools import partial

from .bodies import NASTY, differences, judge, long_body, nasty_body
from .given import body_in
from .outcome import CheckFailed, NotApplicable, require
from .stage import ANN, BEN, Stage

BOOT_S = 90.0
"""The slowest known program needs 20 s for its very first start, and two start at once."""
_FIRST = {ANN: "the first words to ann\nEND", BEN: "the first words to ben\nEND"}
_SOURCE = re.compile(r"@\d| [0-9a-f-]{8,}$| \w+_\w+$")
"""What comes after the name of a source: a place in a file, an id."""
_BOOT_HINT = "screen.ready, screen.dialogs and the words of launch.argv decide: see the screen"
_CANARY = "canary-of-the-conformance-suite"
_SECRET = "what-stands-in-the-file-9f3c"  # noqa: S105 - it is none


def boot(stage: Stage) -> str:
    """Wake two at once by a message each, and take the time until they are ready."""
    for peer, body in _FIRST.items():
        stage.sent[f"first {peer}"] = stage.send(peer, body, topic="first")
    times = []
    for peer in _FIRST:
        try:
            seconds = stage.wait(partial(_boot_s, stage, peer), f"{peer} is ready", BOOT_S)
        except CheckFailed as error:
            raise CheckFailed(error.figure, _BOOT_HINT, peer) from None
        times.append(seconds or 0.0)
    return f"ready in {', '.join(f'{seconds:.1f} s' for seconds in times)} (two at once)"


def _boot_s(stage: Stage, peer: str) -> float | None:
    row = stage.newest(peer)
    return row.ready_at - row.started_at if row is not None and row.ready_at else None


def first_message(stage: Stage) -> str:
    """What woke them is read as soon as they are ready: whole and once."""
    waits = []
    for peer, body in _FIRST.items():
        message = stage.sent[f"first {peer}"]
        told = stage.seen(message, BOOT_S)
        # A very first turn may load what later ones have.
        stage.ended(message, BOOT_S)
        _check_text(stage, message, peer, body)
        seen_at = next(s["at"] for s in reversed(told["steps"]) if s["state"] == told["state"])
        waits.append(seen_at - (stage.session(peer).ready_at or 0.0))
        require(len(told["steps"]) and not told["dup"], "it was handed over twice")
    return f"seen {', '.join(f'{max(0.0, seconds):.1f} s' for seconds in waits)} after ready, once"


def exact_text(stage: Stage) -> str:
    """A text of everything that breaks programs."""
    body = nasty_body()
    message = stage.sent["exact"] = stage.send(ANN, body)
    stage.ended(message)
    return _check_text(stage, message, ANN, body, len(NASTY) + 1)


def long_text(stage: Stage) -> str:
    """A text near the limit."""
    body = long_body()
    message = stage.sent["long"] = stage.send(ANN, body)
    stage.ended(message)
    return f"{len(body)} characters {_check_text(stage, message, ANN, body)}"


def plain_commands(stage: Stage) -> str:
    """What begins with `/` or `!` is text: nothing runs, no dialog opens."""
    before = stage.session(ANN).id
    bodies = (f"!touch {_CANARY}\n! touch {_CANARY}\nEND", "/exit\n/clear\n/help\nEND")
    for body in bodies:
        message = stage.send(ANN, body)
        stage.ended(message)
        _check_text(stage, message, ANN, body)
    ran = (stage.folder(ANN) / _CANARY).exists() or (stage.home / _CANARY).exists()
    require(not ran, "a line that begins with ! was run as a command", "this is a way in: stop")
    require(stage.session(ANN).id == before, "a line that begins with / ended the session")
    return "both arrive as text, nothing ran"


def plain_mention(stage: Stage) -> str:
    """The file that an `@path` names is not attached."""
    (stage.folder(ANN) / "secret.txt").write_text(f"{_SECRET}\n", encoding="utf-8")
    body = "what do you think of @secret.txt, @./secret.txt\nEND"
    message = stage.send(ANN, body)
    stage.ended(message)
    _check_text(stage, message, ANN, body)
    hint = "submit.mentions = true makes such mentions plain text"
    require(not stage.was_given(_SECRET), "the file's content was attached", hint)
    return "the file stayed out"


def evidence(stage: Stage) -> str:
    """What proved that the messages so far were seen, and how soon."""
    if not stage.spec.proves_seen:
        raise NotApplicable("its manifest names no evidence: landed is final")
    sources: dict[str, list[float]] = {}
    for message in stage.sent.values():
        steps = stage.seen(message)["steps"]
        seen = next(step for step in steps if step["event"] == "see")
        source = _SOURCE.split(str(seen["evidence"] or seen["door"]))[0]
        handed = [step["at"] for step in steps if step["event"] == "hand_over"]
        sources.setdefault(source, []).append(seen["at"] - handed[0])
    return "; ".join(
        f"{source}: {len(times)} messages, {min(times):.2f} to {max(times):.2f} s"
        for source, times in sources.items()
    )


def _check_text(stage: Stage, message: str, peer: str, body: str, items: int = 1) -> str:
    """Compare what was given with what was sent; return the figure."""
    if stage.given is None:
        raise NotApplicable("neither its model nor a record of its own can be read")
    texts = stage.wait(lambda: stage.texts(message), "the text is in a request to the model")
    require(len(texts) == 1, f"it was given {len(texts)} times")
    found = differences(stage.expected(message, peer, body), body_in(texts[0], message))
    figure, wrong = judge(found, items)
    require(not wrong, figure, wrong)
    return figure
