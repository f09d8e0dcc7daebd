"""What a session died of: one list of causes, and the rules that choose among them. Pure."""

from __future__ import annotations

import re
import signal
from enum import StrEnum
from typing import Literal

import msgspec

What = Literal["program", "server", "own-server", "boot"]
"""What ended: the agent's program, its tmux server, the runtime's own server beside it, or a
program that had not become ready yet."""

Confidence = Literal["sure", "likely", "guess"]


class Cause(StrEnum):
    """Why a session died. `docs/howto/why-did-it-die.md` explains each."""

    EXIT = "exit"
    SIGNAL = "signal"
    CRASH = "crash"
    OOM = "oom"
    SERVER_KILLED = "server_killed"
    HOST_REBOOT = "host_reboot"
    SERVICE_STOP = "service_stop"
    BOOT_CRASH = "boot_crash"
    QUOTA = "quota"
    API_ERROR = "api_error"
    UNKNOWN = "unknown"


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the rules look at.

    `recorder` is the cause a recorder wrote, empty without one. `watched`: a daemon saw it happen.
    `stopped`: no daemon ran, and the last one had been stopped in order. `killed_for_memory`: the
    kernel's log names one of the session's processes; `memory_kills`: so many processes of its
    cgroup were killed for want of memory since its start. `turn_end` is how its last turn ended,
    `hold` why its messages wait. `words` are its last ones.
    """

    what: What
    status: int | None = None
    signal: int | None = None
    recorder: str = ""
    watched: bool = True
    stopped: bool = False
    rebooted: bool = False
    killed_for_memory: bool = False
    memory_kills: int = 0
    turn_end: str = ""
    hold: str = ""
    words: str = ""


class Verdict(msgspec.Struct, frozen=True):
    """The most likely cause, how sure that is, and what speaks for it in one sentence."""

    cause: Cause
    confidence: Confidence
    why: str


_FAULTS = frozenset({"SEGV", "BUS", "ILL", "FPE", "ABRT", "SYS", "TRAP"})
"""Signals a program gets for what it did itself."""

_QUOTA_WORDS = re.compile(
    r"usage limit|quota|credit balance|insufficient credit|billing|limit (?:reached|will reset)",
    re.IGNORECASE,
)
_API_WORDS = re.compile(
    r"api error|overloaded|rate.?limit|connection error|invalid api key|authentication_error"
    r"|unauthorized|\b(?:401|403|429|500|502|503|529)\b.{0,20}error",
    re.IGNORECASE,
)

_RECORDERS = {
    "server-vanished": (
        "its tmux server vanished without a word: SIGKILL, a crash, or want of memory"
    ),
    "signaled-server-gone": (
        "its tmux server ended in order although nobody here asked: kill-server, or SIGTERM"
    ),
    "client-killed-server-gone": (
        "its tmux server and the recorder's own client were killed together: something sweeps up"
    ),
}


def classify(found: Evidence) -> Verdict:
    """Return the cause that the evidence speaks for; the first rule that fits counts."""
    if found.rebooted:
        return Verdict(Cause.HOST_REBOOT, "sure", "this machine was started anew since then")
    if found.killed_for_memory:
        return Verdict(Cause.OOM, "sure", "the kernel's log says that it was killed for memory")
    if found.what == "server":
        return _of_server(found)
    return _of_program(found)


def signal_name(number: int) -> str:
    """Return `KILL` for 9; the number where the system has no name for it."""
    if number in signal.valid_signals():
        try:
            return signal.Signals(number).name.removeprefix("SIG")
        except ValueError:
            pass
    return str(number)


def _of_server(found: Evidence) -> Verdict:
    if found.memory_kills and found.recorder in ("", "server-vanished"):
        why = "its tmux server vanished, and its cgroup lost processes for want of memory"
        return Verdict(Cause.OOM, "likely", why)
    if found.recorder:
        why = _RECORDERS.get(found.recorder, found.recorder)
        return Verdict(Cause.SERVER_KILLED, "likely", why)
    if found.watched:
        return Verdict(Cause.SERVER_KILLED, "likely", "its tmux server is gone")
    if found.stopped:
        why = "it ended with the service: the daemon was stopped in order and nobody recorded it"
        return Verdict(Cause.SERVICE_STOP, "guess", why)
    return Verdict(Cause.UNKNOWN, "guess", "nobody was watching, and nobody left a record")


def _of_program(found: Evidence) -> Verdict:
    how = _how(found)
    if found.signal == signal.SIGKILL and found.memory_kills:
        why = f"{how}, and its cgroup lost processes for want of memory"
        return Verdict(Cause.OOM, "likely", why)
    if found.what == "boot":
        return Verdict(Cause.BOOT_CRASH, "sure", f"before it was ready: {how}")
    if found.signal is not None:
        if signal_name(found.signal) in _FAULTS:
            return Verdict(Cause.CRASH, "likely", how)
        return Verdict(Cause.SIGNAL, "sure", f"{how}, sent from outside")
    return _of_api(found, how) or _of_status(found, how)


def _of_api(found: Evidence, how: str) -> Verdict | None:
    if found.hold == "quota" or _QUOTA_WORDS.search(found.words):
        return Verdict(Cause.QUOTA, "likely", f"{how}; its quota was used up")
    refused = "api_error" in {found.turn_end, found.hold}
    if refused or _API_WORDS.search(found.words):
        return Verdict(Cause.API_ERROR, "likely", f"{how}; its model's API had refused")
    return None


def _of_status(found: Evidence, how: str) -> Verdict:
    if found.status is None:
        return Verdict(Cause.UNKNOWN, "guess", how)
    if 128 < found.status < 193:
        name = signal_name(found.status - 128)
        return Verdict(Cause.SIGNAL, "likely", f"{how}: it caught signal {name} and left")
    return Verdict(Cause.EXIT, "sure", how)


def _how(found: Evidence) -> str:
    whose = "its own server" if found.what == "own-server" else "its program"
    if found.signal is not None:
        return f"{whose} was ended by signal {found.signal} ({signal_name(found.signal)})"
    if found.status is not None:
        return f"{whose} left with exit status {found.status}"
    return f"{whose} ended, and tmux does not say how"
