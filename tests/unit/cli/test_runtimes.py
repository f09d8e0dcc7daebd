from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from iapeer.storage.paths import Paths, profile_path

from .conftest import Run


@pytest.fixture
def folder(root: Path, run: Run) -> Path:
    """The folders of the agents ann and bob and of the program ci; mytool is installed."""
    (root / "runtimes").mkdir()
    manifest = 'id = "mytool"\n[launch]\nargv = ["sh"]\n'
    (root / "runtimes" / "mytool.toml").write_text(manifest, encoding="utf-8")
    for name, runtime in (("ann", "demo"), ("bob", "demo"), ("ci", "api")):
        assert run("create", name, "--runtime", runtime).status == 0
    return root / "peers"


def profile(cwd: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(profile_path(cwd).read_bytes())
    return read


def record(root: Path, name: str) -> dict[str, Any]:
    index = json.loads(Paths(root).registry.read_bytes())
    return next(peer for peer in index["peers"] if peer["personality"] == name)


@pytest.mark.requirement("cli:add-runtime")
def test_a_runtime_is_added_and_the_default_stays(run: Run, root: Path, folder: Path) -> None:
    done = run("add-runtime", "mytool", "--peer", "bob")
    assert (done.status, done.out, done.err) == (0, "bob (mytool): added\n", "")
    for seen in (profile(folder / "bob"), record(root, "bob")):
        assert seen["runtimes"] == ["demo", "mytool"]
        assert seen["default_runtime"] == seen["runtime"] == "demo"
    before = profile_path(folder / "bob").read_bytes()
    assert run("add-runtime", "mytool", "--peer", "bob").out == "bob (mytool): already\n"
    assert profile_path(folder / "bob").read_bytes() == before
    assert profile(folder / "ann")["runtimes"] == ["demo"]


@pytest.mark.requirement("cli:add-runtime")
def test_all_means_all_agents(run: Run, folder: Path) -> None:
    done = run("add-runtime", "mytool", "--all")
    assert (done.status, done.err) == (0, "")
    assert done.out == (
        "ann (mytool): added\n"
        "bob (mytool): added\n"
        "ci (mytool): skipped-infra-peer — it is no agent\n"
    )
    assert profile(folder / "ci")["runtimes"] == ["api"]
    shown = json.loads(run("add-runtime", "mytool", "--all", "--json").out)
    assert [row["action"] for row in shown] == ["already", "already", "skipped-infra-peer"]


@pytest.mark.requirement("cli:default-runtime")
def test_the_default_is_flipped_in_both_files(run: Run, root: Path, folder: Path) -> None:
    run("add-runtime", "mytool", "--peer", "bob")
    done = run("default-runtime", "mytool", "--peer", "bob")
    assert (done.status, done.out, done.err) == (0, "bob (mytool): flipped\n", "")
    for seen in (profile(folder / "bob"), record(root, "bob")):
        assert seen["default_runtime"] == seen["runtime"] == "mytool"
        assert seen["runtimes"] == ["mytool", "demo"]
    assert run("default-runtime", "mytool", "--peer", "bob").out == "bob (mytool): already\n"
    assert run("verify").status == 0


@pytest.mark.requirement("cli:default-runtime")
def test_a_default_that_is_not_declared_is_refused_and_is_no_failure(
    run: Run, folder: Path
) -> None:
    done = run("default-runtime", "mytool", "--peer", "bob")
    assert (done.status, done.err) == (0, "")
    assert done.out == (
        "bob (mytool): refused-undeclared-runtime — first: iapeer add-runtime mytool --peer bob\n"
    )
    assert profile(folder / "bob")["default_runtime"] == "demo"


@pytest.mark.requirement("cli:add-runtime", "cli:default-runtime")
@pytest.mark.parametrize("verb", ["add-runtime", "default-runtime"])
@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["telegram", "--all"], 1, "'telegram' is an infrastructure runtime"),
        (["qqq", "--all"], 1, "unknown runtime 'qqq'"),
        (["No!", "--all"], 1, "invalid runtime 'No!'"),
        (["demo", "--peer", "eve"], 1, "peer 'eve' is not registered"),
        (["demo"], 2, "needs either --peer or --all"),
        (["demo", "--peer", "bob", "--all"], 2, "needs either --peer or --all"),
    ],
)
def test_what_makes_no_sense_changes_nothing(
    run: Run, root: Path, folder: Path, verb: str, words: list[str], status: int, told: str
) -> None:
    before = Paths(root).registry.read_bytes()
    done = run(verb, *words)
    assert (done.status, done.out) == (status, "")
    assert done.err.startswith(f"iapeer {verb}: {told}\n")
    assert Paths(root).registry.read_bytes() == before


@pytest.mark.requirement("cli:add-runtime")
def test_one_that_fails_spares_the_others(run: Run, folder: Path) -> None:
    profile_path(folder / "ann").write_text("{", encoding="utf-8")
    done = run("add-runtime", "mytool", "--all")
    assert done.status == 1
    first, second, _ = done.out.splitlines()
    assert first.startswith("ann (mytool): failed — ")
    assert second == "bob (mytool): added"


@pytest.mark.requirement("cli:add-runtime", "cli:default-runtime")
def test_the_session_it_is_run_in_has_no_part_in_it(run: Run, folder: Path) -> None:
    poison = {
        "PEER_PERSONALITY": "ann",
        "PEER_RUNTIME": "codex",
        "PEER_IDENTITY": "codex-ann",
        "PEER_TOKEN": "f" * 64,
    }
    run("add-runtime", "mytool", "--peer", "bob", env=poison)
    done = run("default-runtime", "mytool", "--peer", "bob", env=poison)
    assert done.out == "bob (mytool): flipped\n"
    assert profile(folder / "bob")["personality"] == "bob"
    assert profile(folder / "ann")["runtimes"] == ["demo"]
