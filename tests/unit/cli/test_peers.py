from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from iapeer.storage.paths import Paths, profile_path

from .conftest import FakeDaemon, Run


def profile(cwd: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(profile_path(cwd).read_bytes())
    return read


@pytest.fixture
def program(tmp_path: Path, environ: dict[str, str]) -> Path:
    """A folder for PATH that holds nothing."""
    folder = tmp_path / "bin"
    folder.mkdir()
    return folder


def install(root: Path, program: Path, *names: str) -> None:
    """Make runtimes whose programs are on PATH."""
    for name in names:
        manifest = root / "runtimes" / f"{name}.toml"
        manifest.parent.mkdir(exist_ok=True)
        manifest.write_text(f'id = "{name}"\n[launch]\nargv = ["{name}"]\n', encoding="utf-8")
        (program / name).write_text("#!/bin/sh\n", encoding="utf-8")
        (program / name).chmod(0o700)


@pytest.mark.requirement("cli:create")
def test_create_makes_folder_profile_and_record(run: Run, root: Path) -> None:
    done = run("create", "Bob", "--runtime", "demo", "--description", "Tests", "--json")
    cwd = root / "peers" / "bob"
    assert (done.status, done.err) == (0, "")
    assert json.loads(done.out) == {
        "personality": "bob",
        "default_runtime": "demo",
        "runtimes": ["demo"],
        "intelligence": "artificial",
        "description": "Tests",
        "cwd": str(cwd),
        "created": True,
        "doctrine": f"{cwd}/.iapeer/IAPEER.md",
    }
    assert profile(cwd)["personality"] == "bob"


@pytest.mark.requirement("registry:create:again", "cli:create", "cli:init:doctrine")
def test_create_says_what_it_did_and_may_be_repeated(run: Run, root: Path) -> None:
    cwd = root / "peers" / "bob"
    assert run("create", "bob", "--runtime", "demo").out == (
        f"created peer bob (demo) in {cwd}\ntell it who it is: {cwd}/.iapeer/IAPEER.md\n"
    )
    before = profile_path(cwd).read_bytes()
    assert run("create", "bob").out == f"already a peer: bob (demo) in {cwd}\n"
    assert profile_path(cwd).read_bytes() == before


@pytest.mark.requirement("registry:create:home")
def test_create_takes_a_place_and_a_nature(run: Run, tmp_path: Path) -> None:
    done = run(
        *("create", "bob", "--runtime", "demo", "--intelligence", "natural"),
        *("--path", "sub/bob"),
        cwd=tmp_path,
    )
    assert (done.status, done.err) == (0, "")
    assert profile(tmp_path / "sub" / "bob")["intelligence"] == "natural"


@pytest.mark.requirement("names:intelligence:default")
def test_a_program_peer_is_absent_by_its_runtime(run: Run, root: Path) -> None:
    done = run("create", "ci-bot", "--runtime", "api")
    # A program reads no doctrine: nobody is asked to write one.
    assert done.out == f"created peer ci-bot (api) in {root / 'peers' / 'ci-bot'}\n"
    assert profile(root / "peers" / "ci-bot")["intelligence"] == "absent"


@pytest.mark.requirement("cli:create:refused")
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["Ω!"], "iapeer create: no agentic runtime installed\n"),
        (["bob", "--runtime", "nope"], "iapeer create: unknown runtime 'nope'\n"),
        (["42", "--runtime", "demo"], "iapeer create: '42' gives no valid peer name ('42')\n"),
        (["bob", "--runtime", "demo", "--intelligence", "big"], "iapeer create: "),
        (["bob", "--runtime", "demo", "--path", "/tmp/iap-other"], "iapeer create: the folder "),
    ],
)
def test_create_refuses_and_leaves_nothing(
    run: Run, root: Path, program: Path, words: list[str], told: str
) -> None:
    done = run("create", *words, env={"PATH": str(program)})
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith(told)
    assert "\nhint: " in done.err
    assert not Paths(root).registry.exists()
    assert not list((root / "peers").glob("*"))


@pytest.mark.requirement("cli:init:runtime")
def test_without_an_installed_runtime_the_known_ones_are_offered(
    run: Run, root: Path, program: Path
) -> None:
    done = run("create", "bob", env={"PATH": str(program)})
    assert done.status == 1
    first, hint = done.err.splitlines()
    assert first == "iapeer create: no agentic runtime installed"
    assert "demo" in hint
    assert "api" in hint


@pytest.mark.requirement("cli:init:runtime")
def test_the_only_installed_runtime_is_taken(run: Run, root: Path, program: Path) -> None:
    install(root, program, "mytool")
    assert run("create", "bob", env={"PATH": str(program)}).status == 0
    assert profile(root / "peers" / "bob")["default_runtime"] == "mytool"


@pytest.mark.requirement("cli:init:runtime")
def test_of_several_installed_runtimes_one_must_be_named_unless_claude_is_there(
    run: Run, root: Path, program: Path
) -> None:
    install(root, program, "aone", "btwo")
    done = run("create", "bob", env={"PATH": str(program)})
    assert done.err.startswith("iapeer create: several runtimes are installed: aone, btwo\n")
    install(root, program, "claude")
    assert run("create", "bob", env={"PATH": str(program)}).status == 0
    assert profile(root / "peers" / "bob")["default_runtime"] == "claude"


def test_a_named_runtime_must_be_installed(run: Run, root: Path, program: Path) -> None:
    install(root, program, "mytool")
    (program / "mytool").unlink()
    done = run("create", "bob", "--runtime", "mytool", env={"PATH": str(program)})
    assert done.status == 1
    assert done.err.splitlines()[0] == (
        "iapeer create: runtime 'mytool' is not installed: no program 'mytool' on PATH"
    )


@pytest.mark.requirement("cli:init:name")
def test_init_makes_this_folder_a_peer_named_after_it(run: Run, root: Path) -> None:
    cwd = root / "My Project"
    cwd.mkdir()
    done = run("init", "--runtime", "demo", cwd=cwd)
    assert (done.status, done.err) == (0, "")
    assert done.out == (
        f"created peer my-project (demo) in {cwd}\ntell it who it is: {cwd}/.iapeer/IAPEER.md\n"
    )
    before = profile_path(cwd).read_bytes()
    assert run("init", str(cwd)).out == f"already a peer: my-project (demo) in {cwd}\n"
    assert profile_path(cwd).read_bytes() == before


@pytest.mark.requirement("profile:birth:discovery", "cli:init:runtime")
def test_init_follows_the_marks_of_an_agent_in_the_folder(
    run: Run, root: Path, program: Path
) -> None:
    install(root, program, "claude", "codex")
    cwd = root / "web"
    (cwd / ".codex").mkdir(parents=True)
    assert run("init", str(cwd), env={"PATH": str(program)}).status == 0
    assert profile(cwd)["default_runtime"] == "codex"


@pytest.mark.requirement("profile:birth:discovery", "cli:init:runtime")
def test_init_says_when_what_the_folder_was_used_with_is_not_installed(
    run: Run, root: Path, program: Path
) -> None:
    cwd = root / "web"
    (cwd / ".claude").mkdir(parents=True)
    done = run("init", str(cwd), env={"PATH": str(program)})
    assert done.status == 0
    assert done.err == "warning: claude is not installed: no 'claude' on PATH\n"
    assert profile(cwd)["default_runtime"] == "claude"


@pytest.mark.requirement("profile:birth:again")
def test_init_can_add_a_runtime_and_the_default_stays(run: Run, root: Path) -> None:
    cwd = root / "bob"
    cwd.mkdir()
    assert run("init", str(cwd), "--runtime", "demo").status == 0
    assert run("init", str(cwd), "--runtime", "api").status == 0
    assert profile(cwd)["default_runtime"] == "demo"
    assert profile(cwd)["runtimes"] == ["demo", "api"]


def test_init_refuses_a_folder_that_is_not_there(run: Run, root: Path) -> None:
    done = run("init", str(root / "none"), "--runtime", "demo")
    assert done.status == 1
    assert done.err.startswith(f"iapeer init: {root / 'none'} is not a folder\n")


@pytest.mark.requirement("cli:remove")
def test_remove_asks_the_daemon_and_tells_what_went(daemon: FakeDaemon, run: Run) -> None:
    answer = {
        "personality": "bob",
        "action": "removed",
        "cwd": "/peers/bob",
        "purged": ["demo-bob.launch", "demo-bob.env"],
        "failed_messages": ["a", "b"],
    }
    daemon.on("POST", "/api/v1/peers/bob/remove", {"ok": True, "result": answer})
    done = run("remove", "--force", "bob")
    assert (done.status, done.err) == (0, "")
    assert done.out == (
        'removed "bob" from the registry\n'
        "lifecycle state purged: demo-bob.launch, demo-bob.env\n"
        "undelivered messages failed: 2\n"
        "folder kept: /peers/bob (delete it yourself if you want to)\n"
    )
    assert daemon.asked[0].body == {"force": True}
    assert json.loads(run("remove", "bob", "--json").out) == answer
    assert daemon.asked[1].body == {"force": False}


@pytest.mark.requirement("registry:remove:absent")
def test_removing_nobody_is_no_error(daemon: FakeDaemon, run: Run) -> None:
    daemon.on(
        "POST", "/api/v1/peers/bob/remove", {"ok": True, "result": {"action": "absent", "cwd": ""}}
    )
    done = run("remove", "bob")
    assert (done.status, done.out) == (0, '"bob" not registered — no-op\n')


@pytest.mark.requirement("registry:remove:live")
def test_a_live_peer_is_not_removed_without_force(daemon: FakeDaemon, run: Run) -> None:
    daemon.refuse("POST", "/api/v1/peers/bob/remove", 409, '"bob" is live', "use --force")
    done = run("remove", "bob")
    assert (done.status, done.out) == (1, "")
    assert done.err == 'iapeer remove: "bob" is live\nhint: use --force\n'


@pytest.mark.parametrize("name", ["../bob", "a/b", "bob?x", "b b", "б"])
def test_what_can_not_be_a_name_is_not_put_into_a_request(
    daemon: FakeDaemon, run: Run, name: str
) -> None:
    done = run("remove", name)
    assert (done.status, done.out) == (1, "")
    assert done.err == f"iapeer remove: {name!r} is no peer name\n"
    assert daemon.asked == []


def test_rename_asks_the_daemon(daemon: FakeDaemon, run: Run) -> None:
    answer = {"old": "bob", "new": "rob", "cwd": "/peers/rob", "action": "renamed"}
    daemon.on("POST", "/api/v1/peers/bob/rename", {"ok": True, "result": answer})
    done = run("rename", "bob", "rob")
    assert (done.status, done.err) == (0, "")
    assert done.out == 'renamed "bob" to "rob"\nfolder: /peers/rob\n'
    assert daemon.asked[0].body == {"to": "rob"}


@pytest.mark.requirement("cli:verify:status")
def test_verify_finds_drift_and_fix_mends_it(run: Run, root: Path) -> None:
    run("create", "bob", "--runtime", "demo")
    path = profile_path(root / "peers" / "bob")
    path.write_text(path.read_text(encoding="utf-8").replace('"artificial"', '"natural"'), "utf-8")
    done = run("verify")
    assert done.status == 1
    assert done.out == (
        "↯ bob: index↔local drift on intelligence\n1 peers · 0 error(s) · 1 index↔local drift(s)\n"
    )
    report = json.loads(run("verify", "--json").out)
    assert (report["peers"], report["errors"], report["drift"]) == (1, 0, 1)
    fixed = run("verify", "--fix")
    assert (fixed.status, fixed.err) == (0, "")
    assert fixed.out == (
        "self-healed index from local profiles\n1 peers · 0 error(s) · 0 index↔local drift(s)\n"
    )


@pytest.mark.requirement("cli:verify:json")
def test_verify_fix_with_json_keeps_stdout_json(run: Run, root: Path) -> None:
    run("create", "bob", "--runtime", "demo")
    profile_path(root / "peers" / "bob").unlink()
    done = run("verify", "--json", "--fix")
    assert done.status == 1
    assert json.loads(done.out)["errors"] == 1
    assert "self-healed index from local profiles" in done.err
    assert "bob: local profile missing" in done.err


@pytest.mark.requirement("cli:verify:status")
def test_a_host_without_peers_is_in_order(run: Run) -> None:
    done = run("verify")
    assert (done.status, done.err) == (0, "")
    assert done.out == "0 peers · 0 error(s) · 0 index↔local drift(s)\n"


def test_settings_that_can_not_be_read_are_named(run: Run, root: Path) -> None:
    (root / "iapeer.toml").write_text("port = 'x'\n", encoding="utf-8")
    done = run("create", "bob", "--runtime", "demo")
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith(f"iapeer create: {root / 'iapeer.toml'}: ")
