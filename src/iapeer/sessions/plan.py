"""A launch with everything filled in: what runs where, in which environment.

The token is not part of it: it is added at the last moment, to the hand-over file only.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from iapeer.core import env
from iapeer.core.clock import Clock
from iapeer.core.errors import LaunchFailed
from iapeer.core.identity import socket_name
from iapeer.core.settings import Settings
from iapeer.runtimes.spec import RuntimeSpec
from iapeer.runtimes.templates import PLACEHOLDERS, expand
from iapeer.storage.atomic import ensure_private_dir
from iapeer.storage.launchenv import read_launch_env
from iapeer.storage.ledger.store import Ledger
from iapeer.storage.paths import Paths, launch_env_path, peer_state_dir

from .environment import session_env
from .model import LaunchRequest


@dataclass(frozen=True)
class Surroundings:
    """What launches depend on and share; made once."""

    settings: Settings
    paths: Paths
    ledger: Ledger
    clock: Clock
    environ: Mapping[str, str]
    tmux: str
    mcp_url: Callable[[], str]
    boots: asyncio.Semaphore


@dataclass(frozen=True)
class Plan:
    """A launch with everything filled in; `env` has no token yet."""

    session_id: str
    socket: Path
    transcript: str
    argv: tuple[str, ...]
    env: dict[str, str]


def program_path(spec: RuntimeSpec, environ: Mapping[str, str], cwd: Path) -> str | None:
    """Return the program a runtime's sessions run, None when it is not installed."""
    if not spec.launch.argv:
        return None
    anything = dict.fromkeys(PLACEHOLDERS, "peer")
    program = expand((spec.launch.argv[0],), {**anything, "python": sys.executable})[0]
    if "/" in program:
        found = cwd / program
        return str(found) if found.is_file() else None
    return shutil.which(program, path=environ.get("PATH"))


def make_plan(request: LaunchRequest, spec: RuntimeSpec, around: Surroundings) -> Plan:
    """Expand the manifest for this peer.

    Raises LaunchFailed (`cwd_gone`, `binary_missing`), StorageError.
    """
    identity = request.identity
    if not request.cwd.is_dir():
        raise LaunchFailed(
            f"{identity.address}: peer cwd does not exist: {request.cwd}",
            hint=f"restore the folder, or: iapeer remove {identity.personality}",
            code="cwd_gone",
        )
    if program_path(spec, around.environ, request.cwd) is None:
        raise LaunchFailed(
            f"{identity.address}: the program of runtime {spec.id} is not installed",
            hint=f"install {spec.launch.argv[0]!r} or mend its manifest",
            code="binary_missing",
        )
    session_id = str(uuid.uuid4())
    state = peer_state_dir(request.cwd, identity.runtime)
    ensure_private_dir(state)
    ensure_private_dir(around.settings.sock_dir)
    values = {
        "python": sys.executable,
        "cwd": str(request.cwd),
        "identity": identity.address,
        "personality": identity.personality,
        "runtime": identity.runtime,
        "session_id": session_id,
        "mcp_url": around.mcp_url(),
        "state_dir": str(state),
        "prompt_hook": msgspec.json.encode(
            [sys.executable, "-P", "-m", "iapeer.client.hook"]
        ).decode(),
    }
    values["transcript"] = (
        expand((spec.evidence.transcript,), values)[0] if spec.evidence.transcript else ""
    )
    if values["transcript"]:
        ensure_private_dir(Path(values["transcript"]).parent)
    extra = read_launch_env(launch_env_path(request.cwd, identity.runtime))
    names = tuple(spec.launch.env)
    filled = dict(zip(names, expand(tuple(spec.launch.env.values()), values), strict=True))
    return Plan(
        session_id=session_id,
        socket=around.settings.sock_dir / socket_name(identity),
        transcript=values["transcript"],
        argv=(*expand(spec.launch.argv, values), *extra.start_args),
        env=session_env(
            around.environ,
            filled,
            dict(extra.variables),
            strip=spec.launch.strip_env,
            own={
                env.PEER_IDENTITY: identity.address,
                env.PEER_PERSONALITY: identity.personality,
                env.PEER_RUNTIME: identity.runtime,
                env.SESSION_ID: session_id,
                env.MCP_URL: values["mcp_url"],
                env.ROOT: str(around.settings.root),
                env.DAEMON_SOCKET: str(around.settings.daemon_socket),
            },
        ),
    )
