"""`iapeer deaths` and `iapeer postmortem`: which sessions died, and the story of one death.

Both read ledger and files, so they work while no daemon runs, which is when they are needed.
"""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from iapeer.core.errors import PeerNotFound, UsageError

from . import output
from .context import is_sandbox, load_settings
from .grammar import Call

if TYPE_CHECKING:
    from iapeer.core.profile import RegistryRecord
    from iapeer.sessions.forensics.cases import Case
    from iapeer.storage.ledger.rows import PostmortemRow
    from iapeer.storage.paths import Paths

AT_MOST = 50
_DEATH_ID = re.compile(r"[0-9a-f][0-9a-f-]{5,35}")

_WHAT = {
    "program": "its program",
    "server": "its tmux server",
    "own-server": "the server its program talks to",
    "boot": "its program, before it was ready",
}
_TURNS = {
    "": "was running",
    "done": "had ended",
    "api_error": "had ended early: its model's API refused",
    "interrupted": "had been interrupted by a person",
    "died": "was cut off by the death",
    "unknown": "had ended, nobody saw how",
}
_NEXT = {
    "exit": "Look at its last words. If nobody told it to leave: iapeer attach {peer}",
    "signal": "Somebody or something sent that signal: look for kill, pkill or a job's time limit.",
    "crash": "A defect of the program: keep its core dump, and look for a newer version of it.",
    "oom": "Give the machine or its cgroup more memory, or let fewer peers run at once.",
    "server_killed": "Look for what kills tmux: pkill tmux, killall, a clean-up at logout"
    " (loginctl enable-linger keeps yours).",
    "host_reboot": "Nothing: the next message starts it again.",
    "service_stop": "Run the daemon so that its sessions outlive it: docs/howto/run-at-login.md",
    "boot_crash": "Run its program by hand in its folder: {cwd}",
    "quota": "Wait for the quota or give it another account; messages are kept until then.",
    "api_error": "Look at the API's state and your login: iapeer attach {peer}",
    "unknown": "Nothing was left behind. The daemon and its recorders tell more next time.",
}


def deaths(call: Call) -> int:
    """List the newest deaths."""
    from iapeer.sessions.forensics.cases import deaths as read_deaths

    paths = _paths()
    name = call.get("peer")
    uid = None if name is None else _record(paths, name).uid
    found = read_deaths(paths, uid, _limit(call))
    if call.has("json"):
        output.emit([_as_json(death) for death in found])
    elif not found:
        output.say("no deaths")
    elif output.is_rich():
        output.table(("DEATH", "WHEN", "WHO", "CAUSE", "WHY"), [_cells(death) for death in found])
    else:
        for death in found:
            output.row(*_cells(death))
    return 0


def postmortem(call: Call) -> int:
    """Tell the story of one death."""
    from iapeer.sessions.forensics.cases import case

    paths, name = _paths(), call.need("peer-or-death")
    try:
        found = case(paths, uid=_record(paths, name).uid, name=name)
    except PeerNotFound:
        if not _DEATH_ID.fullmatch(name):
            raise
        found = case(paths, name=name)
    if call.has("json"):
        output.emit(_story_json(found))
    else:
        output.say(_story(found))
    return 0


def _paths() -> Paths:
    from iapeer.storage.paths import Paths

    return Paths(load_settings().root)


def _record(paths: Paths, name: str) -> RegistryRecord:
    """Return the peer of that name. Raises PeerNotFound."""
    from iapeer.registry.index import Registry

    return Registry(paths, sandbox=is_sandbox()).snapshot(allow_stale=True).require(name)


def _limit(call: Call) -> int:
    text = call.get("limit")
    if text is None:
        return AT_MOST
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise UsageError(f"--limit {text!r} is no positive number")
    return int(text)


def _cells(death: PostmortemRow) -> tuple[str, ...]:
    from iapeer.sessions.forensics.cases import death_id

    return (
        death_id(death),
        _clock(death.at),
        f"{death.runtime}-{death.personality}",
        f"{death.cause} ({death.confidence})",
        death.why,
    )


def _as_json(death: PostmortemRow) -> dict[str, Any]:
    from iapeer.sessions.forensics.cases import death_id

    told: dict[str, Any] = msgspec.to_builtins(death)
    told.pop("words")
    return {
        "id": death_id(death),
        "identity": f"{death.runtime}-{death.personality}",
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(death.at)),
        **told,
    }


def _story_json(found: Case) -> dict[str, Any]:
    session, successor = found.session, found.successor
    return {
        **_as_json(found.death),
        "words": found.death.words.split("\n") if found.death.words else [],
        "started_at": session.started_at if session else None,
        "mode": session.mode if session else None,
        "cwd": session.cwd if session else None,
        "turn": None if found.turn is None else {"end": found.turn[0], "ended_at": found.turn[1]},
        "records": list(found.records),
        "messages": [
            {"at": step.at, "id": step.message_id, "event": step.event, "state": step.state}
            for step in found.steps
        ],
        "next_session": successor.id if successor else None,
        "advice": _advice(found),
    }


def _story(found: Case) -> str:
    death = found.death
    lines = [
        f"{death.runtime}-{death.personality} died {_clock(death.at)} (death {found.id})",
        f"  cause      {death.cause} ({death.confidence}): {death.why}",
        f"  first gone {_WHAT.get(death.what, death.what)}",
        *_running(found),
        *_last_turn(found),
        *_daemon(found),
    ]
    if death.report:
        lines.append(f"  the host   {death.report}")
    lines.append(f"  do next    {_advice(found)}")
    lines += _block("messages, at the end", [_step(found, n) for n in range(len(found.steps))])
    lines += _block("records, at the end (kinds only)", list(found.records[-5:]))
    words = death.words.split("\n") if death.words else []
    lines += _block("last words", words) or ["", "last words: none were left"]
    return "\n".join(lines)


def _running(found: Case) -> list[str]:
    session = found.session
    if session is None:
        return []
    lived = max(0.0, found.death.at - session.started_at)
    text = f"session {session.id}, {session.mode}, for {_span(lived)}"
    if session.ready_at is None:
        text += ", never ready"
    return [f"  running    {text}", f"  in         {session.cwd}"]


def _last_turn(found: Case) -> list[str]:
    if found.turn is None:
        return ["  last turn  none"]
    end, ended_at = found.turn
    text = _TURNS.get(end, end)
    if end not in ("", "died") and ended_at is not None:
        text += f" {_span(max(0.0, found.death.at - ended_at))} before"
    return [f"  last turn  {text}"]


def _daemon(found: Case) -> list[str]:
    death, did = found.death, []
    returned = sorted({step.message_id for step in found.steps if step.event == "return"})
    if returned:
        did.append(f"gave {len(returned)} message{'s' if len(returned) > 1 else ''} back")
    if found.successor is not None:
        later = _span(max(0.0, found.successor.started_at - death.at))
        did.append(f"started the next session {later} later")
    saw = "saw it happen" if death.watched else "did not see it"
    return [f"  the daemon {'; '.join([saw, *did])}"]


def _step(found: Case, number: int) -> str:
    step = found.steps[number]
    return f"{_clock(step.at)} {step.message_id} {step.event} -> {step.state}"


def _advice(found: Case) -> str:
    text = _NEXT.get(found.death.cause, _NEXT["unknown"])
    cwd = found.session.cwd if found.session else "?"
    return text.replace("{peer}", found.death.personality).replace("{cwd}", cwd)


def _block(title: str, rows: list[str]) -> list[str]:
    return ["", f"{title}:", *(f"  {row}" for row in rows)] if rows else []


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86400:.0f} days"
