"""A real daemon on a throw-away root, with as many peers and sessions as a row needs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from benchmarks.wire import encode
from iapeer.core import env
from iapeer.core.identity import Intelligence
from iapeer.core.ids import new_uid
from iapeer.core.profile import Profile, RegistryRecord, project
from iapeer.registry.index import Registry
from iapeer.storage.atomic import ensure_private_dir, write_text
from iapeer.storage.jsonfile import dump_json
from iapeer.storage.ledger import sessions as rows
from iapeer.storage.ledger.offline import offline_read
from iapeer.storage.ledger.rows import SessionRow
from iapeer.storage.paths import Paths, profile_path
from iapeer.testing.daemon import TestDaemon, wait_until

OPERATOR = "op"
BOX = "box"
"""A program that is not connected: what is sent to it is accepted, held and answered."""
LINE = "line"
"""The smallest runtime there is: `cat`, a program that reads lines."""
BODY = "A message of two thousand characters. " * 54

_SETTINGS = """\
# The guards look at each message; their limits are out of the way of a benchmark.
pair_bucket = 1e9
host_bucket = 1e9
queue_limit = 1000000000
boot_limit = 8
"""
LINE_MANIFEST = """\
id = "line"

[launch]
argv = ["cat"]

[submit]
settle_ms = 0
"""

_TUI_MANIFEST = """\
id = "line"

[launch]
argv = ["{python}", "-I", "{program}"]

[launch.env]
NOTES = "{{cwd}}/notes"

[screen]
prompt_glyphs = [">"]
ready = ["^>"]
paste_patterns = ["[Pasted text"]
"""


def tui_manifest(program: Path) -> str:
    """Return a manifest for a terminal program of ours with a composer, which writes `NOTES`."""
    return _TUI_MANIFEST.format(python=sys.executable, program=program)


def prepare(peers: int = 0, manifest: str = LINE_MANIFEST) -> TestDaemon:
    """Make a root with the operator, the box and so many sleeping peers; nothing runs yet.

    `manifest` is that of their runtime, `line`.
    """
    daemon = TestDaemon.make()
    paths = Paths(daemon.root)
    for folder in (daemon.root, daemon.root / "runtimes", paths.peers):
        ensure_private_dir(folder)
    write_text(daemon.root / "iapeer.toml", _SETTINGS)
    write_text(daemon.root / "runtimes" / f"{LINE}.toml", manifest)
    records = [_record(paths, name, "api") for name in (OPERATOR, BOX)]
    records += [_record(paths, f"p{number}", LINE) for number in range(peers)]
    Registry(paths, sandbox=True).replace(records)
    return daemon


@contextmanager
def house(peers: int = 0, manifest: str = LINE_MANIFEST) -> Iterator[TestDaemon]:
    """Start a daemon with `prepare`'s root; everything is gone afterwards."""
    daemon = prepare(peers, manifest)
    try:
        daemon.start()
        yield daemon
        daemon.run("stop", "--all", expect=None)
    finally:
        daemon.clean_up()


def send_request(
    to: str = BOX, number: int | str = 0, headers: dict[str, str] | None = None
) -> bytes:
    """Return an encoded send of 2 KB from the operator; `number` makes its text its own."""
    body = {"to": to, "message": f"{BODY}{number}", "from": f"api-{OPERATOR}"}
    return encode("/api/v1/send", body, headers)


def wake(daemon: TestDaemon, names: list[str]) -> None:
    """Start a session of each peer by a message; returns when all of them have one."""

    def one(name: str) -> None:
        message = daemon.send(name, "Hello.", f"api-{OPERATOR}")
        daemon.wait_state(message["message_id"], "landed", "seen", timeout_s=120)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, names))


def session_of(daemon: TestDaemon, name: str) -> SessionRow:
    """Return the row of a peer's live session."""
    found: SessionRow = wait_until(lambda: _live(daemon).get(name), reason=f"a session of {name}")
    return found


def live_sessions(daemon: TestDaemon) -> list[SessionRow]:
    """Return the rows of all live sessions."""
    return list(_live(daemon).values())


def token_of(daemon: TestDaemon, name: str) -> str:
    """Return the token of a peer's live session, as its own program has it."""
    row = session_of(daemon, name)
    block = Path(f"/proc/{row.pane_pid}/environ").read_bytes().decode(errors="replace")
    variables = dict(item.partition("=")[::2] for item in block.split("\0"))
    return variables[env.SESSION_TOKEN]


def run_time(argv: list[str], environ: dict[str, str], stdin: int | None = None) -> float:
    """Return the seconds a whole process takes. Raises RuntimeError when it fails."""
    actions: list[tuple[int, int, int]] = [] if stdin is None else [(os.POSIX_SPAWN_DUP2, stdin, 0)]
    actions.append((os.POSIX_SPAWN_DUP2, _null(), 1))
    began = time.perf_counter()
    pid = os.posix_spawn(argv[0], argv, environ, file_actions=actions)
    status = os.waitpid(pid, 0)[1]
    taken = time.perf_counter() - began
    if status:
        raise RuntimeError(f"{argv}: status {os.waitstatus_to_exitcode(status)}")
    return taken


def _null() -> int:
    if not _NULL:
        _NULL.append(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
    return _NULL[0]


_NULL: list[int] = []


def _live(daemon: TestDaemon) -> dict[str, SessionRow]:
    with offline_read(Paths(daemon.root).ledger) as conn:
        return {row.personality: row for row in rows.live_sessions(conn) if row.ready_at}


def _record(paths: Paths, name: str, runtime: str) -> RegistryRecord:
    """Make a peer's folder and profile, without the syncs that make thousands of them slow."""
    home = paths.peer_home(name)
    profile = Profile(
        personality=name,
        default_runtime=runtime,
        runtimes=(runtime,),
        intelligence=Intelligence.ABSENT,
        uid=new_uid(),
    )
    file = profile_path(home)
    for folder in (home, file.parent):
        folder.mkdir(mode=0o700)
    file.write_bytes(dump_json(profile.to_json()))
    file.chmod(0o600)
    return project(profile, str(home))
