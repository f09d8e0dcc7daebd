"""Memory, hooks and plug-ins, as the real programs see them; the marketplace is a folder here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from iapeer.testing.agents import AgentDaemon

LIMIT_S = 60
HANDLER = {"type": "command", "command": 'echo "é" & exit'}
HOOKS = {
    "SessionStart": [{"matcher": "startup", "hooks": [HANDLER, {**HANDLER, "async": True}]}],
    "SessionEnd": [{"hooks": [HANDLER, {**HANDLER, "timeout": 90}]}],
    "PostToolUse": [{"matcher": "a|b", "hooks": [{"type": "prompt"}, {**HANDLER, "timeout": 0}]}],
    "UserPromptSubmit": [{"matcher": "x", "hooks": [{**HANDLER, "statusMessage": "hé"}]}],
    "Stop": [{"hooks": [{**HANDLER, "additionalContextLimit": 5}]}],
    "Interrupt": [{"matcher": "x", "hooks": [HANDLER]}],
}


def ask_codex(program: Path, environ: dict[str, str], method: str, params: Any) -> Any:
    """Ask an app-server of the real Codex one question."""
    process = subprocess.Popen(
        [program, "app-server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environ,
        cwd=environ["HOME"],
        encoding="utf-8",
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    hello: dict[str, Any] = {"clientInfo": {"name": "test", "version": "1"}}
    hello["capabilities"] = {"experimentalApi": True}
    calls = [("initialize", hello), (method, params)]
    answer: dict[str, Any] = {}
    try:
        for number, (name, value) in enumerate(calls):
            call = {"id": number, "method": name, "params": value}
            process.stdin.write(json.dumps(call) + "\n")
            process.stdin.flush()
            while answer.get("id") != number:
                answer = json.loads(process.stdout.readline())
        return answer["result"]
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(10)
        process.stdin.close()
        process.stdout.close()


@pytest.mark.requirement("memory:hooks:hash")
def test_codex_trusts_what_trust_hooks_has_written(
    real_daemon: AgentDaemon, agent_binaries: dict[str, Path], agent_environ: dict[str, str]
) -> None:
    program = agent_binaries["codex"]
    real_daemon.create("bob", runtime="codex")
    cwd = real_daemon.root / "peers" / "bob"
    config = Path(agent_environ["HOME"]) / ".codex" / "config.toml"
    (cwd / ".codex").mkdir()
    path = cwd / ".codex" / "hooks.json"
    path.write_text(json.dumps({"hooks": HOOKS}), encoding="utf-8")
    before = config.read_text(encoding="utf-8")
    section = f'\n[projects."{cwd.resolve()}"]\ntrust_level = "trusted"\n'
    config.write_text(before + section, encoding="utf-8")

    def listed() -> set[tuple[str, str]]:
        answer = ask_codex(program, agent_environ, "hooks/list", {"cwds": [str(cwd)]})
        return {(h["key"], h["trustStatus"]) for e in answer["data"] for h in e["hooks"]}

    untrusted = listed()
    assert len(untrusted) == 8
    assert {status for _, status in untrusted} == {"untrusted"}
    assert real_daemon.run("trust-hooks", str(path), expect=0).stdout == "trusted 8 hook(s)\n"
    assert listed() == {(key, "trusted") for key, _ in untrusted}
    real_daemon.run("remove", "bob", expect=0)
    assert tomllib.loads(config.read_text(encoding="utf-8")) == tomllib.loads(before + section)


@pytest.mark.requirement("memory:birth:held", "memory:native:off")
def test_codex_obeys_the_lever_in_a_folder_that_a_birth_made_trusted(
    real_daemon: AgentDaemon, agent_binaries: dict[str, Path], agent_environ: dict[str, str]
) -> None:
    slot = {"provider": "mem", "package": "p", "version": "1"}
    real_daemon.root.mkdir(mode=0o700, exist_ok=True)
    (real_daemon.root / "memory-provider.json").write_text(json.dumps(slot), encoding="utf-8")
    config = Path(agent_environ["HOME"]) / ".codex" / "config.toml"
    text = config.read_text(encoding="utf-8")
    assert "features" not in tomllib.loads(text)
    # The user wants memories; a peer's own folder wins over that, if it is trusted.
    config.write_text(text + "\n[features]\nmemories = true\n", encoding="utf-8")
    before = config.read_bytes()
    real_daemon.run("create", "bob", "--runtime", "codex", expect=0)
    cwd = real_daemon.root / "peers" / "bob"

    def memories() -> object:
        asked = {"cwd": str(cwd), "includeLayers": False}
        answer = ask_codex(agent_binaries["codex"], agent_environ, "config/read", asked)
        return (answer["config"].get("features") or {}).get("memories")

    assert memories() is False
    real_daemon.run("native-memory", "on", "--peer", "bob", expect=0)
    assert memories() is True
    real_daemon.run("remove", "bob", expect=0)
    assert config.read_bytes() == before


@pytest.mark.requirement("memory:enable:claude", "memory:enable:codex")
@pytest.mark.parametrize("agent", ["claude", "codex"])
def test_a_plug_in_of_a_local_marketplace_is_enabled_by_the_real_program(
    agent: str,
    real_daemon: AgentDaemon,
    agent_binaries: dict[str, Path],
    agent_environ: dict[str, str],
) -> None:
    market = Path(agent_environ["HOME"]) / "market"
    plugin = {"name": "notes", "version": "0.1.0", "description": "d"}
    listed = [{"name": "notes", "source": "./plugins/notes", "description": "d"}]
    catalog = {"name": "mine", "owner": {"name": "x"}, "plugins": listed}
    files: dict[str, object] = {
        ".claude-plugin/marketplace.json": catalog,
        ".agents/plugins/marketplace.json": catalog,
        "plugins/notes/.claude-plugin/plugin.json": plugin,
        "plugins/notes/.codex-plugin/plugin.json": plugin,
        "plugins/notes/iapeer.json": {"setup": {"command": "touch", "args": ["set-up"]}},
    }
    for name, content in files.items():
        (market / name).parent.mkdir(parents=True, exist_ok=True)
        (market / name).write_text(json.dumps(content), encoding="utf-8")
    subprocess.run(
        [agent_binaries[agent], "plugin", "marketplace", "add", str(market)],
        env=agent_environ,
        cwd=agent_environ["HOME"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=LIMIT_S,
        check=True,
    )
    real_daemon.create("bob", "ann", runtime=agent)
    done = real_daemon.run("enable", "notes@mine", "bob", expect=0)
    assert done.stdout == f"{agent}: installed\nsetup: called\n"
    assert (real_daemon.root / "peers" / "bob" / "set-up").exists()
    done = real_daemon.run("enable", "notes@mine", "bob", "--no-setup", expect=0)
    assert done.stdout == f"{agent}: already-enabled\nsetup: skipped\n"
    done = real_daemon.run("enable", "notes@mine", "ann", "--no-setup", expect=0)
    # Claude's are the project's, Codex's the account's.
    state = {"claude": "installed", "codex": "already-enabled"}[agent]
    assert done.stdout == f"{agent}: {state}\nsetup: skipped\n"
    done = real_daemon.run("enable", "other@mine", "bob", expect=1)
    assert done.stdout.startswith(f"{agent}: failed — plugin ")
