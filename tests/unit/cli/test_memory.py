from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from iapeer.registry.memory.merge import backup_path
from iapeer.storage.paths import Paths

from .conftest import Run


@pytest.fixture
def agents(root: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs `claude` and `codex` and their manifests; PATH begins with their folder."""
    folder = root / "bin"
    folder.mkdir()
    (root / "runtimes").mkdir()
    for name in ("claude", "codex"):
        manifest = f'id = "{name}"\n[launch]\nargv = ["{name}"]\n'
        (root / "runtimes" / f"{name}.toml").write_text(manifest, encoding="utf-8")
        (folder / name).write_text("#!/bin/sh\n", encoding="utf-8")
        (folder / name).chmod(0o700)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


@pytest.fixture
def config(root: Path) -> Path:
    return root / "home" / ".codex" / "config.toml"


def hold(root: Path, script: str = "exit 0") -> Path:
    """Put a provider into the slot; returns the file it notes its arguments in."""
    program, calls = root / "provider", root / "calls"
    program.write_text(f'#!/bin/sh\necho "$*" >> "{calls}"\n{script}\n', encoding="utf-8")
    program.chmod(0o700)
    command = {"command": str(program), "args": ["{runtime}", "{personality}", "{occasion}"]}
    slot = {"provider": "mem", "package": "@x/mem", "version": "1.2", "registeredAt": "2026"}
    slot_file = Paths(root).memory_slot
    slot_file.write_text(
        json.dumps({**slot, "provision": command, "unprovision": command}), encoding="utf-8"
    )
    return calls


def hooks_file(cwd: Path) -> Path:
    path = cwd / ".codex" / "hooks.json"
    path.parent.mkdir(exist_ok=True)
    handler = {"type": "command", "command": "x"}
    hooks = {"Stop": [{"hooks": [handler]}], "SessionStart": [{"hooks": [handler]}]}
    path.write_text(json.dumps({"hooks": hooks}), encoding="utf-8")
    return path


def settings(root: Path, name: str) -> Any:
    return json.loads((root / "peers" / name / ".claude" / "settings.json").read_bytes())


@pytest.mark.requirement("memory:verb:native")
def test_native_memory_of_one_peer_or_of_all(run: Run, root: Path, agents: Path) -> None:
    run("create", "bob", "--runtime", "claude")
    run("create", "ann", "--runtime", "codex")
    run("create", "dan", "--runtime", "demo")
    done = run("native-memory", "off", "--peer", "bob")
    path = root / "peers" / "bob" / ".claude" / "settings.json"
    assert (done.status, done.out, done.err) == (0, f"bob (claude): written — {path}\n", "")
    assert settings(root, "bob") == {"autoMemoryEnabled": False}
    done = run("native-memory", "off", "--all")
    assert done.status == 0
    assert [line.split(" — ")[0] for line in done.out.splitlines()] == [
        "ann (codex): written",
        "bob (claude): already",
        "dan: skipped",
    ]
    shown = json.loads(run("native-memory", "on", "--all", "--json").out)
    assert [(each["personality"], each["runtime"], each["state"]) for each in shown] == [
        ("ann", "codex", "written"),
        ("bob", "claude", "written"),
        ("dan", "", "skipped"),
    ]
    assert not path.exists()


@pytest.mark.requirement("memory:verb:native")
def test_native_memory_that_fails_ends_with_one(run: Run, root: Path, agents: Path) -> None:
    run("create", "bob", "--runtime", "claude")
    path = root / "peers" / "bob" / ".claude" / "settings.json"
    path.parent.mkdir()
    path.write_text("[]", encoding="utf-8")
    done = run("native-memory", "off", "--peer", "bob")
    assert done.status == 1
    assert "bob (claude): failed — " in done.out
    assert path.read_text(encoding="utf-8") == "[]"


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["native-memory", "off"], 2),
        (["native-memory", "off", "--all", "--peer", "bob"], 2),
        (["native-memory", "maybe", "--all"], 2),
        (["native-memory", "off", "--peer", "nobody"], 1),
        (["memory", "forget", "--all"], 2),
        (["trust-hooks"], 2),
        (["trust-hooks", "/no/such/hooks.json"], 1),
        (["enable", "-x"], 2),
        (["enable", "a b", "bob"], 1),
        (["enable", "a", "nobody"], 1),
        (["enable", "a"], 1),
    ],
)
def test_what_can_not_be_done_is_refused(run: Run, words: list[str], status: int) -> None:
    done = run(*words)
    assert (done.status, done.out) == (status, "")
    assert done.err.startswith(f"iapeer {words[0]}: ")


def test_without_peers_there_is_nothing_to_turn(run: Run) -> None:
    assert run("native-memory", "off", "--all").out == "no peers registered\n"


@pytest.mark.requirement("memory:verb:trust-hooks")
def test_hooks_are_checked_trusted_and_taken_back_with_the_peer(
    run: Run, root: Path, agents: Path, config: Path
) -> None:
    config.parent.mkdir()
    config.write_text("# mine\n", encoding="utf-8")
    run("create", "bob", "--runtime", "codex")
    path = hooks_file(root / "peers" / "bob")
    done = run("trust-hooks", str(path), "--check")
    assert done.status == 1
    assert done.out == (
        f"missing\tstop\t{path}:stop:0:0\nmissing\tsession_start\t{path}:session_start:0:0\n"
    )
    assert config.read_text(encoding="utf-8") == "# mine\n"
    done = run("trust-hooks", str(path))
    assert (done.status, done.out) == (0, "trusted 2 hook(s)\n")
    assert done.err == f"the configuration as it was: {backup_path(config)}\n"
    assert backup_path(config).read_text(encoding="utf-8") == "# mine\n"
    assert run("trust-hooks", str(path)).out == "already trusted\n"
    done = run("trust-hooks", str(path), "--check")
    assert done.status == 0
    assert done.out.startswith("trusted\tstop\t")
    path.write_text(path.read_text(encoding="utf-8").replace('"x"', '"y"', 1), encoding="utf-8")
    shown = json.loads(run("trust-hooks", str(path), "--check", "--json").out)
    assert [row["status"] for row in shown] == ["drift", "trusted"]
    done = run("remove", "bob")
    assert f"codex hooks trust: 2 removed from {config}\n" in done.out
    assert config.read_text(encoding="utf-8") == "# mine\n"


@pytest.mark.requirement("memory:verb:trust-hooks")
def test_a_file_without_hooks_and_one_of_no_peer(run: Run, root: Path, config: Path) -> None:
    path = root / "hooks.json"
    path.write_text("{}", encoding="utf-8")
    assert run("trust-hooks", str(path), "--check").status == 0
    assert run("trust-hooks", str(path)).out == "already trusted\n"
    assert not config.exists()
    path = hooks_file(root)
    shown = json.loads(run("trust-hooks", str(path), "--json").out)
    assert (shown["trusted"], shown["config"]) == (2, str(config))
    assert not Paths(root).changes.exists()


@pytest.mark.requirement("memory:verb:trust-hooks")
def test_a_configuration_that_can_not_be_read_is_an_error(
    run: Run, root: Path, config: Path
) -> None:
    config.parent.mkdir()
    config.write_text("broken =", encoding="utf-8")
    done = run("trust-hooks", str(hooks_file(root)))
    assert done.status == 1
    assert "is not valid TOML" in done.err
    assert config.read_text(encoding="utf-8") == "broken ="


@pytest.mark.requirement("memory:birth:held", "memory:removal")
def test_birth_and_removal_tell_what_the_provider_did(
    run: Run, root: Path, agents: Path, config: Path
) -> None:
    calls = hold(root)
    cwd = root / "peers" / "bob"
    done = run("create", "bob", "--runtime", "codex")
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines() == [
        f"created peer bob (codex) in {cwd}",
        f"native memory off: {cwd}/.codex/config.toml",
        f"codex trust entry: {cwd} in {config}",
        "memory provision: codex ok",
        f"tell it who it is: {cwd}/.iapeer/IAPEER.md",
    ]
    assert run("create", "bob").out == f"already a peer: bob (codex) in {cwd}\n"
    shown = json.loads(run("init", str(cwd), "--runtime", "claude", "--json").out)
    assert shown["memory"][-1] == "memory provision: claude ok"
    done = run("remove", "bob")
    assert done.out.splitlines() == [
        'removed "bob" from the registry',
        "memory unprovision: codex ok",
        "memory unprovision: claude ok",
        f"codex trust entry: removed from {config}",
        f"folder kept: {cwd} (delete it yourself if you want to)",
    ]
    assert not config.exists()
    assert calls.read_text(encoding="utf-8").splitlines() == [
        "codex bob birth",
        "claude bob birth",
        "codex bob remove",
        "claude bob remove",
    ]
    log = Paths(root).lifecycle_log.read_text(encoding="utf-8").splitlines()
    assert [line.split(" ", 1)[1].split(" ms=")[0] for line in log] == [
        f"ev=memory-provision identity={runtime}-bob occasion={occasion} state=ok exit=0"
        for occasion in ("birth", "remove")
        for runtime in ("codex", "claude")
    ]


@pytest.mark.requirement("memory:birth:never-fails", "memory:repair")
def test_a_provider_that_fails_is_told_loudly_and_can_be_asked_again(
    run: Run, root: Path, agents: Path
) -> None:
    hold(root, "echo no vault >&2; exit 1")
    done = run("create", "bob", "--runtime", "claude")
    assert done.status == 0
    assert done.err == (
        "warning: MEMORY PROVISION of claude: failed (exit 1): no vault\n"
        "hint: iapeer memory repair --peer bob\n"
    )
    done = run("memory", "repair", "--peer", "bob")
    assert (done.status, done.out) == (1, "bob: nothing done\n")
    assert "no vault" in done.err
    hold(root)
    done = run("memory", "repair", "--all")
    assert (done.status, done.out, done.err) == (0, "bob: memory provision: claude ok\n", "")
    (shown,) = json.loads(run("memory", "repair", "--peer", "bob", "--json").out)
    assert shown["lines"] == ["memory provision: claude ok"]
    hold(root, "exit 7")
    done = run("remove", "bob")
    assert done.status == 0
    assert done.err == "warning: MEMORY UNPROVISION of claude: failed (exit 7)\n"
    assert done.out.startswith('removed "bob" from the registry\n')


@pytest.mark.requirement("memory:repair")
def test_without_a_provider_there_is_nothing_to_repair(run: Run) -> None:
    done = run("memory", "repair", "--all")
    assert (done.status, done.out) == (0, "memory: none, nothing to repair\n")
