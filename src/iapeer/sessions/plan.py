"""A launch with everything filled in: what runs where, in which environment.

The token is not part of it: it is added at the last moment, to the hand-over file only.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import secrets
import shlex
import shutil
import socket
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from iapeer.core import env
from iapeer.core.clock import Clock
from iapeer.core.errors import LaunchFailed
from iapeer.core.identity import Identity, socket_name
from iapeer.core.settings import Settings
from iapeer.runtimes.spec import RuntimeSpec
from iapeer.runtimes.templates import PLACEHOLDERS, expand, expand_one, placeholders
from iapeer.storage.atomic import ensure_private_dir
from iapeer.storage.launchenv import LaunchEnv, read_launch_env
from iapeer.storage.ledger.store import Ledger
from iapeer.storage.paths import Paths, launch_env_path, peer_state_dir

from .channel import Channel, Report
from .environment import session_env
from .files import write_files
from .model import LaunchRequest, TmuxSession

_NOT_PLAIN = re.compile(r"[^A-Za-z0-9]")


class Surroundings(msgspec.Struct, frozen=True):
    """What launches depend on and share; made once."""

    settings: Settings
    paths: Paths
    ledger: Ledger
    clock: Clock
    environ: Mapping[str, str]
    tmux: str
    mcp_url: Callable[[], str]
    boots: asyncio.Semaphore
    channels: Mapping[str, Callable[[TmuxSession, Report], Channel]] = msgspec.field(
        default_factory=dict
    )
    """By door: makes the connection to a session's own server."""
    compose: Callable[[Identity, Path], Path | None] = lambda _identity, _cwd: None
    """Writes the system prompt of a peer and returns its path, None for a bare session."""
    log: Callable[..., None] = lambda _ev, **_fields: None
    """Writes one line of lifecycle.log."""
    stopped: bool = False
    """Whether the daemon before this one was stopped in order."""


class Plan(msgspec.Struct, frozen=True):
    """A launch with everything filled in; `env` has no token yet.

    `native_id` is the runtime's own session, `offset` the length of what it wrote down earlier.
    """

    session_id: str
    native_id: str
    mode: Literal["fresh", "resume"]
    socket: Path
    transcript: str
    offset: int
    home: str
    endpoint: str
    argv: tuple[str, ...]
    server_argv: tuple[str, ...]
    env: dict[str, str]


def is_installed(spec: RuntimeSpec, environ: Mapping[str, str], cwd: Path) -> bool:
    """Tell whether the program that a runtime's sessions run is there."""
    if not spec.launch.argv:
        return False
    anything = dict.fromkeys(PLACEHOLDERS, "peer")
    program = expand((spec.launch.argv[0],), {**anything, "python": sys.executable})[0]
    if "/" in program:
        return (cwd / program).is_file()
    return _is_on_path(program, environ.get("PATH"))


_FOUND: dict[tuple[str, str | None], str] = {}
"""Programs by their name and the path they were found on. Each accepted message asks, and a search
takes a look into every folder on the path."""
_FOUND_MAX = 256


def _is_on_path(program: str, path: str | None) -> bool:
    known = _FOUND.get((program, path))
    if known is not None and os.access(known, os.X_OK):
        return True
    found = shutil.which(program, path=path)
    if found is None:
        return False
    if len(_FOUND) >= _FOUND_MAX:
        _FOUND.clear()
    _FOUND[program, path] = found
    return True


def make_plan(request: LaunchRequest, spec: RuntimeSpec, around: Surroundings) -> Plan:
    """Expand the manifest for this peer, and write the files its program will look for.

    Raises LaunchFailed (`cwd_gone`, `binary_missing`, `config`), StorageError.
    """
    _check(request, spec, around)
    settings, identity = around.settings, request.identity
    extra = read_launch_env(launch_env_path(request.cwd, identity.runtime))
    variables = dict(extra.variables)
    session_id = str(uuid.uuid4())
    native_id = request.resume if spec.can_resume and request.resume else session_id
    values = _values(request, spec, around, native_id)
    isolated = is_isolated(spec, settings)
    values["home"] = config_home(identity, request.cwd, spec, around)
    values["isolated"] = "yes" if isolated else ""
    if isolated:
        ensure_private_dir(Path(values["home"]))
    endpoint = _endpoint(spec, settings, session_id, values)
    transcript = ""
    if spec.evidence.transcript:
        transcript = expand((spec.evidence.transcript,), values)[0]
        values["transcript"] = transcript
        _make_folder(Path(transcript).parent)
    else:
        values["transcript"] = ""
    offset = _length(transcript)
    if native_id != session_id and spec.evidence.transcript and not offset:
        # Nothing was ever said in it: real programs refuse to go on with such a conversation.
        native_id = values["session_id"] = session_id
    resumes = native_id != session_id
    write_files(spec.launch.files, values, isolated=isolated)
    argv = spec.launch.resume_argv if resumes else spec.launch.argv
    filled = {name: expand_one(value, values) for name, value in spec.launch.env.items()}
    return Plan(
        session_id=session_id,
        native_id=native_id,
        mode="resume" if resumes else "fresh",
        socket=settings.sock_dir / socket_name(identity),
        transcript=transcript,
        offset=offset,
        home=values["home"],
        endpoint=endpoint,
        argv=(*expand(argv, values), *extra.start_args),
        server_argv=(*expand(spec.launch.server_argv, values), *_for_server(spec, extra)),
        env=session_env(
            around.environ,
            {name: value for name, value in filled.items() if value is not None},
            variables,
            strip=spec.launch.strip_env,
            own={
                env.PEER_IDENTITY: identity.address,
                env.PEER_PERSONALITY: identity.personality,
                env.PEER_RUNTIME: identity.runtime,
                env.SESSION_ID: session_id,
                env.MCP_URL: values["mcp_url"],
                env.ROOT: str(settings.root),
                env.DAEMON_SOCKET: str(settings.daemon_socket),
            },
        ),
    )


def is_isolated(spec: RuntimeSpec, settings: Settings) -> bool:
    """Whether the program gets a configuration home of its own."""
    return (settings.agent_config or spec.config) == "isolated"


def config_home(identity: Identity, cwd: Path, spec: RuntimeSpec, around: Surroundings) -> str:
    """Return where the program keeps its configuration. Raises StorageError."""
    if is_isolated(spec, around.settings):
        return str(peer_state_dir(cwd, identity.runtime) / "home")
    own = dict(read_launch_env(launch_env_path(cwd, identity.runtime)).variables)
    return own.get(env.HOME) or around.environ.get(env.HOME) or "/"


def _for_server(spec: RuntimeSpec, extra: LaunchEnv) -> Iterator[str]:
    """Yield those of the peer's own start arguments that its program's server must know too."""
    if not spec.launch.server_argv:
        return
    words = iter(extra.start_args)
    for word in words:
        name, has_value, _ = word.partition("=")
        if name in spec.launch.server_takes:
            yield word
            if not has_value:
                yield from itertools.islice(words, 1)


def _check(request: LaunchRequest, spec: RuntimeSpec, around: Surroundings) -> None:
    identity = request.identity
    if not request.cwd.is_dir():
        raise LaunchFailed(
            f"{identity.address}: peer cwd does not exist: {request.cwd}",
            hint=f"restore the folder, or: iapeer remove {identity.personality}",
            code="cwd_gone",
        )
    if not is_installed(spec, around.environ, request.cwd):
        raise LaunchFailed(
            f"{identity.address}: the program of runtime {spec.id} is not installed",
            hint=f"install {spec.launch.argv[0]!r} or mend its manifest",
            code="binary_missing",
        )


def _values(
    request: LaunchRequest, spec: RuntimeSpec, around: Surroundings, native_id: str
) -> dict[str, str]:
    """Return what the placeholders stand for that need no decision."""
    identity = request.identity
    state = peer_state_dir(request.cwd, identity.runtime)
    ensure_private_dir(state)
    ensure_private_dir(around.settings.sock_dir)
    real = str(request.cwd.resolve())
    hook = [sys.executable, "-P", "-m", "iapeer.client.hook"]
    prompt = around.compose(identity, request.cwd) if _takes_a_prompt(spec) else None
    return {
        "python": sys.executable,
        "cwd": str(request.cwd),
        "cwd_real": real,
        "cwd_quoted": json.dumps(real),
        "cwd_slug": _NOT_PLAIN.sub("-", real),
        "identity": identity.address,
        "personality": identity.personality,
        "runtime": identity.runtime,
        "session_id": native_id,
        "mcp_url": around.mcp_url(),
        "state_dir": str(state),
        "prompt_hook": msgspec.json.encode(hook).decode(),
        "hook": shlex.join(hook),
        "system_prompt": str(prompt or ""),
        "root": "yes" if os.geteuid() == 0 else "",
    }


def _takes_a_prompt(spec: RuntimeSpec) -> bool:
    launch = spec.launch
    words = (*launch.argv, *launch.resume_argv, *launch.server_argv, *launch.env.values())
    return any("system_prompt" in placeholders(word) for word in words)


def _endpoint(
    spec: RuntimeSpec, settings: Settings, session_id: str, values: dict[str, str]
) -> str:
    """Fill in where the runtime's own server is to listen; return its address with the secret."""
    values.update(endpoint="", port="", secret="")
    match spec.launch.endpoint:
        case "unix":
            # A new name each time: a stale socket of the one before is in nobody's way.
            path = settings.sock_dir / f"srv-{session_id[:13]}.sock"
            values["endpoint"] = str(path)
            return str(path)
        case "http":
            port, secret = _free_port(), secrets.token_urlsafe(24)
            values.update(endpoint=f"http://127.0.0.1:{port}", port=str(port), secret=secret)
            return f"http://iapeer:{secret}@127.0.0.1:{port}"
        case _:
            return ""


def _free_port() -> int:
    """Return a port nobody listens on; the program takes it a moment later."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _make_folder(folder: Path) -> None:
    """Make the folder of a record, so that it can be watched before its first line."""
    if not folder.is_dir():
        ensure_private_dir(folder)


def _length(transcript: str) -> int:
    try:
        return Path(transcript).stat().st_size if transcript else 0
    except OSError:
        return 0
