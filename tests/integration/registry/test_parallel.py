"""Several processes on one index: nothing is lost, nothing is half written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from iapeer.registry import index
from iapeer.registry.index import PeerUpdate, Registry
from iapeer.registry.profiles import read_profile
from iapeer.storage.paths import Paths

NOBODY = 65534
SOURCE = Path(index.__file__).parents[2]
IMPORTS = """
import os, resource, sys
from pathlib import Path
from iapeer.core.errors import IapeerError
from iapeer.registry.admin import BirthRules, CreateSpec, create
from iapeer.registry.index import PeerUpdate, Registry
from iapeer.storage.paths import Paths
paths = Paths(Path(sys.argv[1]))
registry = Registry(paths, sandbox=False)
"""


def start(code: str, *args: str) -> subprocess.Popen[str]:
    """Start a child that waits for a line on its standard input after its imports."""
    child = subprocess.Popen(
        [sys.executable, "-c", f"{IMPORTS}\nprint('ready', flush=True)\ninput()\n{code}", *args],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE), "HOME": "/nonexistent"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def go(children: list[subprocess.Popen[str]]) -> list[str]:
    """Let them all run at once; return what they printed."""
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    results = [child.communicate(timeout=60) for child in children]
    assert [stderr for _, stderr in results] == [""] * len(children)
    return [stdout.strip() for stdout, _ in results]


@pytest.mark.requirement("registry:write:parallel")
def test_twelve_processes_that_register_peers_all_land(tmp_path: Path) -> None:
    code = (
        "name = sys.argv[2]\n"
        "registry.upsert(PeerUpdate(personality=name, runtime='claude', cwd=f'/peers/{name}'))\n"
    )
    names = [f"peer-{number:02d}" for number in range(12)]
    children = [start(code, str(tmp_path / "root"), name) for name in names]
    go(children)
    paths = Paths(tmp_path / "root")
    snapshot = Registry(paths, sandbox=True).snapshot()
    assert [record.personality for record in snapshot] == names
    assert snapshot.problems == ()
    assert sorted(os.listdir(paths.root)) == ["peers-profiles.json", "peers-profiles.lock"]


@pytest.mark.requirement("registry:write:parallel")
def test_parallel_updates_of_one_peer_unite_their_runtimes(tmp_path: Path) -> None:
    code = (
        "update = PeerUpdate(personality='bob', runtime=sys.argv[2], cwd='/bob')\n"
        "registry.upsert(update)\n"
    )
    runtimes = [f"rt{number}" for number in range(6)]
    go([start(code, str(tmp_path / "root"), runtime) for runtime in runtimes])
    (record,) = Registry(Paths(tmp_path / "root"), sandbox=True).snapshot()
    assert sorted(record.runtimes) == runtimes


def test_of_several_folders_that_want_one_name_exactly_one_gets_it(tmp_path: Path) -> None:
    code = (
        "spec = CreateSpec(name='bob', runtime='claude', path=Path(sys.argv[2]) / 'bob')\n"
        "try: create(paths, registry, spec, BirthRules(frozenset({'claude'}))); print('won')\n"
        "except IapeerError as error: print(error.code)\n"
    )
    places = [tmp_path / f"place{number}" for number in range(6)]
    for place in places:
        place.mkdir()
    printed = go([start(code, str(tmp_path / "root"), str(place)) for place in places])
    assert sorted(printed) == ["peer_exists"] * 5 + ["won"]
    (record,) = Registry(Paths(tmp_path / "root"), sandbox=True).snapshot()
    assert record.cwd == str(places[printed.index("won")] / "bob")
    assert read_profile(Path(record.cwd)).uid == record.uid
    assert [place for place in places if (place / "bob").exists()] == [Path(record.cwd).parent]


@pytest.mark.requirement("registry:write:lock", "registry:write:atomic")
def test_a_writer_killed_at_any_moment_leaves_a_whole_index_and_a_free_lock(
    tmp_path: Path,
) -> None:
    code = (
        "n = 0\n"
        "while True:\n"
        "    n += 1\n"
        "    registry.upsert(PeerUpdate(personality='bob', runtime='claude', cwd='/bob',\n"
        "                               description=f'{n} ' + 'x' * 400))\n"
        "    if n == 3: print('writing', flush=True)\n"
    )
    paths = Paths(tmp_path / "root")
    registry = Registry(paths, sandbox=True)
    for round_ in range(8):
        child = start(code, str(paths.root))
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "writing\n"
        child.kill()
        child.communicate(timeout=30)
        (record,) = [record for record in registry.snapshot() if record.personality == "bob"]
        assert len(record.description) > 400
        registry.upsert(PeerUpdate(personality=f"r{round_}", runtime="claude", cwd="/x"))
    assert len(registry.snapshot().records) == 9


@pytest.mark.requirement("registry:write:atomic")
def test_a_full_disk_keeps_the_old_index_and_says_what_to_do(tmp_path: Path) -> None:
    paths = Paths(tmp_path / "root")
    registry = Registry(paths, sandbox=True)
    registry.upsert(PeerUpdate(personality="ann", runtime="claude", cwd="/ann"))
    before = paths.registry.read_bytes()
    code = (
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))\n"
        "try: registry.upsert(PeerUpdate(personality='bob', runtime='claude', cwd='/bob',\n"
        "                                description='x' * 400))\n"
        "except IapeerError as error: print(error.code, error)\n"
    )
    (printed,) = go([start(code, str(paths.root))])
    assert printed.startswith("storage ")
    assert str(paths.registry) in printed
    assert paths.registry.read_bytes() == before
    assert sorted(os.listdir(paths.root)) == ["peers-profiles.json", "peers-profiles.lock"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop to another uid")
def test_a_root_of_another_user_is_refused_untouched() -> None:
    # Not below tmp_path: nobody else may enter pytest's own folders.
    root = Path(tempfile.mkdtemp(prefix="iap", dir="/tmp"))
    code = (
        f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "try: registry.upsert(PeerUpdate(personality='bob', runtime='claude', cwd='/bob'))\n"
        "except IapeerError as error: print(error.code, error)\n"
        "try: registry.snapshot()\n"
        "except IapeerError as error: print(error.code, error)\n"
    )
    (root / "peers-profiles.json").write_text(
        json.dumps({"version": 2, "peers": []}), encoding="utf-8"
    )
    (printed,) = go([start(code, str(root))])
    writing, reading = printed.splitlines()
    assert writing.startswith("storage ")
    assert "belongs to uid 0" in writing
    assert reading.startswith("registry ")
    assert str(root / "peers-profiles.json") in reading
    (root / "peers-profiles.json").unlink()
    root.rmdir()  # fails when something was left in it
