"""agent-relay 1.6.0, the last published version that runs without its cloud: a daemon in node."""

from __future__ import annotations

import json
import re
import socket
import struct
import subprocess
import time
from pathlib import Path

import msgspec

from benchmarks.rivals.install import from_npm
from benchmarks.rivals.measure import clean_environ, running, scratch
from benchmarks.rivals.readings import Burst, NotRun, Plan, Reading, Rival

VERSION = "1.6.0"
_START_S = 30.0
_DRIVE_S = 240.0
_COMPLAINTS = re.compile(r"Write queue full|Rate limited|Retry failed|Dropping")


class _Driven(msgspec.Struct, frozen=True):
    """What `relay_driver.mjs` writes down."""

    sent_s: tuple[float, ...]
    seen_s: tuple[float, ...]
    one: Burst
    many: Burst


def prepare() -> Path:
    """Install it with the two native parts its program does not start without."""
    return from_npm("agent-relay", compiled=("better-sqlite3", "node-pty"))


def measure(installed: Path, plan: Plan) -> Reading:
    """Start its daemon as its command does, and send from client to client."""
    package = installed / "node_modules" / "agent-relay" / "dist"
    with scratch() as folder:
        environ = clean_environ(folder, AGENT_RELAY_DATA_DIR=str(folder / "d"))
        _no_update_check(folder)
        argv = ["node", str(package / "cli" / "index.js"), "up", "--no-dashboard", "--no-spawn"]
        with running(argv, environ, folder) as server:
            start_s = server.answer_time(lambda: _answers(folder), _START_S)
            result = folder / "result.json"
            driver = [
                "node",
                str(Path(__file__).with_name("relay_driver.mjs")),
                str(package / "wrapper" / "client.js"),
                str(_socket(folder)),
                str(result),
            ]
            sizes = (plan.samples, plan.single, plan.senders, plan.each)
            _drive([*driver, *map(str, sizes)], environ, folder)
            found = msgspec.json.decode(result.read_bytes(), type=_Driven)
            uss, pss = server.memory()
            said = server.log.read_text(encoding="utf-8", errors="replace")
    return Reading(
        start_s=start_s,
        sent_s=found.sent_s,
        seen_s=found.seen_s,
        one=found.one,
        many=found.many,
        uss_mib=uss,
        pss_mib=pss,
        note=complaints(said),
    )


def complaints(log: str) -> str:
    """Return which troubles its daemon wrote into its log, and how often."""
    counts: dict[str, int] = {}
    for words in _COMPLAINTS.findall(log):
        counts[words] = counts.get(words, 0) + 1
    return ", ".join(f"{count} x '{words}'" for words, count in sorted(counts.items()))


def _drive(argv: list[str], environ: dict[str, str], folder: Path) -> None:
    with (folder / "driver.log").open("wb") as sink:
        try:
            done = subprocess.run(
                argv,
                env=environ,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=sink,
                timeout=_DRIVE_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise NotRun(f"its clients did not finish within {_DRIVE_S:g} s") from error
    if done.returncode:
        words = (folder / "driver.log").read_text(encoding="utf-8", errors="replace")
        raise NotRun(f"its client failed: {' '.join(words.split())[-300:]}")


def _no_update_check(folder: Path) -> None:
    """Say that it asked for a newer version just now: it then does not ask the network."""
    cache = folder / "home" / ".agent-relay"
    cache.mkdir()
    known = {"lastCheck": int(time.time() * 1000), "latestVersion": None}
    (cache / "update-cache.json").write_text(json.dumps(known), encoding="utf-8")


def _socket(folder: Path) -> Path | None:
    return next(iter((folder / "d").glob("*/relay.sock")), None)


def _answers(folder: Path) -> bool:
    """Say hello as a client does: four bytes of length, then JSON."""
    path = _socket(folder)
    if path is None:
        return False
    hello = {
        "v": 1,
        "type": "HELLO",
        "id": "hello",
        "ts": int(time.time() * 1000),
        "payload": {"agent": "probe", "capabilities": {"ack": True}},
    }
    data = json.dumps(hello).encode()
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(5)
            probe.connect(str(path))
            probe.sendall(struct.pack(">I", len(data)) + data)
            return b"WELCOME" in probe.recv(1 << 16)
    except OSError:
        return False


RIVAL = Rival(
    name="agent-relay",
    version=VERSION,
    prepare=prepare,
    measure=measure,
    commands=("agent-relay up --no-dashboard --no-spawn",),
    entrance="its `RelayClient.sendMessage`, unix socket",
    recipient="a `RelayClient` that is connected",
    promise="nothing: the bytes are in the sender's own buffer",
    told=False,
)
