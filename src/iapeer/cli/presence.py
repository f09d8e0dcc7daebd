"""Sessions that begin and end on purpose: the operator's word, and a session's word for itself."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from iapeer.core import env
from iapeer.core.errors import CallerError, DaemonDown, PeerNotFound, RuntimeUnknown
from iapeer.core.identity import parse_identity
from iapeer.core.profile import RegistryRecord

from . import output, wire
from .context import is_sandbox, load_settings
from .grammar import Call
from .listing import Row, fetch
from .sessions import become_tmux, bring_up, for_each

_INERT = " — NOTE: this peer is not wake_policy:ephemeral, the marker is inert"


def new(call: Call) -> int:
    """End a peer's session and bring a fresh one up; done when that one is ready."""
    peer = call.need("peer")
    identity = str(bring_up(call, "new", peer)["identity"])
    if call.has("json"):
        output.emit({**_parts(identity), "action": "new"})
    else:
        output.say(f"new: {identity} fresh session up")
    return 0


def refresh(call: Call) -> int:
    """Let the next session begin afresh, whenever that is; nothing is ended."""
    return for_each(call, "refresh")


def live_runtime(call: Call) -> int:
    """Print the runtime that a peer is live on; returns 1 when there is none.

    Of several it is the one used last, where that is known, else the default one.
    """
    peer = call.need("peer")
    wire.peer_path(peer, "")  # refuses what can't be a name
    row = next((row for row in fetch() if row.personality == peer), None)
    if row is None:
        raise PeerNotFound(f"peer {peer!r} is not registered", hint="iapeer list shows who is")
    live = _live(row)
    if call.has("json"):
        shown = {"personality": peer, "runtime": live[0] if live else None, "runtimes": live}
        output.emit(shown)
    elif live:
        output.say(live[0])
    else:
        output.warn(f"iapeer live-runtime: {peer} has no live session")
    return 0 if live else 1


def launch(call: Call) -> int:
    """Bring the peer of this folder up afresh and, on a terminal, attach to it."""
    runtime = call.need("runtime")
    record = _resident(runtime)
    if runtime not in record.runtimes:
        raise RuntimeUnknown(
            f"runtime {runtime!r} is not declared for {record.personality!r}",
            hint=f"let it: iapeer add-runtime {runtime} --peer {record.personality}",
        )
    point = bring_up(call, "launch", record.personality)["attach"]
    if call.has("json"):
        output.emit(point)
        return 0
    did = f"launched {point['identity']} (fresh)"
    if not point.get("woke"):
        did = f"{point['identity']} is live already: nothing launched"
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        output.say(did)
        return 0
    output.warn(f"{did}; attaching…")
    return become_tmux(load_settings(), point)


def self_done(call: Call) -> int:
    """Say that this session has finished its task; nobody is woken by it."""
    answer, _ = _own("done")
    identity, is_ephemeral = answer["identity"], answer["ephemeral"]
    if call.has("json"):
        output.emit({**_parts(identity), "action": "armed", "ephemeral": is_ephemeral})
    else:
        note = "" if is_ephemeral else _INERT
        output.say(f"self-done: armed {identity} for the quiet-window reap (no one woken){note}")
    return 0


def self_fresh(call: Call) -> int:
    """End this very session and have a fresh one begin."""
    answer, down = _own("fresh")
    identity = answer["identity"]
    if call.has("json"):
        output.emit({**_parts(identity), "action": "fresh", "ephemeral": answer["ephemeral"]})
    else:
        output.say(f"self-fresh: {identity} ends and begins afresh")
    # The session is ended any moment now, and we are in it.
    output.flush()
    if down is not None:
        from . import offline

        offline.start(down, call.verb.name)
    return 0


def _own(verb: str) -> tuple[dict[str, Any], DaemonDown | None]:
    """Do something to the session that this runs in, with or without a daemon.

    Returns what was done, and how it was found that no daemon runs. Raises CallerError outside
    a session, Unauthorized in one that has ended.
    """
    _check_session()
    try:
        return wire.ask("POST", f"/api/v1/session/{verb}"), None
    except DaemonDown as down:
        from iapeer.host.presence import offline_done, offline_fresh

        act = offline_done if verb == "done" else offline_fresh
        done = act(load_settings(), os.environ)
        return {"identity": done.identity, "ephemeral": done.ephemeral}, down


def _check_session() -> None:
    """Refuse to run outside a session: the environment says who and proves it."""
    hint = "this verb is for agents: run it in a session that iapeer started"
    identity = os.environ.get(env.PEER_IDENTITY, "").strip()
    if not identity:
        raise CallerError(f"{env.PEER_IDENTITY} is not set", hint=hint)
    if parse_identity(identity) is None:
        raise CallerError(f"invalid {env.PEER_IDENTITY} {identity!r}", hint=hint)
    if not os.environ.get(env.SESSION_TOKEN, "").strip():
        raise CallerError(f"{env.SESSION_TOKEN} is not set", hint=hint)


def _parts(identity: str) -> dict[str, str]:
    runtime, _, personality = identity.partition("-")
    return {"identity": identity, "personality": personality, "runtime": runtime}


def _live(row: Row) -> list[str]:
    """Return the live runtimes, the one to name first."""
    live = [runtime for runtime in row.runtimes if row.status(runtime) == "live"]
    first = (row.last_active_runtime, row.default_runtime)
    return sorted(live, key=lambda runtime: first.index(runtime) if runtime in first else 2)


def _resident(runtime: str) -> RegistryRecord:
    """Return the peer of this very folder. Raises CallerError saying how to make it one."""
    from iapeer.registry.index import Registry, same_folder
    from iapeer.registry.profiles import find_profile
    from iapeer.storage.paths import Paths

    cwd = Path.cwd()
    profile = find_profile(cwd)
    if profile is None:
        for folder in cwd.parents:
            above = find_profile(folder)
            if above is not None:
                raise CallerError(
                    f"no peer lives in {cwd}",
                    hint=f"{above.personality} lives above: cd {folder}; or make this folder one: "
                    f"iapeer init --runtime {runtime}",
                )
        raise CallerError(
            f"no peer lives in {cwd}", hint=f"make it one: iapeer init --runtime {runtime}"
        )
    snapshot = Registry(Paths(load_settings().root), sandbox=is_sandbox()).snapshot()
    record = snapshot.get(profile.personality)
    if record is None or not same_folder(record.cwd, str(cwd)):
        raise CallerError(
            f"the peer {profile.personality!r} of {cwd} is not registered",
            hint="register it: iapeer init",
        )
    return record
