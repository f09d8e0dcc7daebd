"""The person whose HOME the agents run in: set up once, logged in, and all of it made up.

What stands here is what a person has done before iapeer comes: the CLI's first run and its login,
here to the simulator. What iapeer does for a peer (folder trust, hooks, tools, permissions) is not
here, or a test could not see it missing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KEY = "sk-simulator-no-secret-0123456789abcdef"
"""The API key of everybody here; the simulator takes any."""
_MODEL = "simulated-model"


@dataclass(frozen=True)
class User:
    """What one CLI finds: files by their path below HOME, and variables."""

    files: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)


def user_of(agent: str, url: str) -> User:
    """Return the set-up of one agent CLI for a simulator at `url`; an empty one for others."""
    make = _USERS.get(agent)
    return make(url) if make is not None else User()


def move_in(home: Path, url: str) -> None:
    """Write the files of all CLIs into an empty HOME, 0600."""
    for make in _USERS.values():
        for name, text in make(url).files.items():
            path = home / name
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            path.chmod(0o600)


def user_environ(home: Path, path: str, *agents: str, url: str) -> dict[str, str]:
    """Return a clean environment in which these CLIs can be run directly, without iapeer.

    `path` is the whole PATH. Nothing of the caller's environment is in it.
    """
    result = {"HOME": str(home), "PATH": path, "LC_ALL": "C.UTF-8", "TERM": "xterm-256color"}
    if os.geteuid() == 0:
        # Claude refuses its bypass mode to root outside a sandbox.
        result["IS_SANDBOX"] = "1"
    for agent in agents:
        result |= user_of(agent, url).variables
    return result


def _claude(url: str) -> User:
    # A key from the environment is used only when its last 20 characters were once approved.
    approved = {"approved": [KEY[-20:]], "rejected": []}
    first_run = {"hasCompletedOnboarding": True, "customApiKeyResponses": approved}
    return User(
        files={".claude.json": _json(first_run)},
        variables={
            "ANTHROPIC_BASE_URL": url,
            "ANTHROPIC_API_KEY": KEY,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "CLAUDE_CODE_MAX_RETRIES": "1",
            "DISABLE_AUTOUPDATER": "1",
        },
    )


def _codex(url: str) -> User:
    config = f"""\
model = "{_MODEL}"
model_provider = "simulator"
check_for_update_on_startup = false

[model_providers.simulator]
name = "simulator"
base_url = "{url}/v1"
wire_api = "responses"
env_key = "SIMULATOR_API_KEY"
request_max_retries = 1
stream_max_retries = 1

[analytics]
enabled = false
"""
    return User(files={".codex/config.toml": config}, variables={"SIMULATOR_API_KEY": KEY})


def _opencode(url: str) -> User:
    limit = {"context": 200_000, "output": 8_000}
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "simulator",
        "options": {"baseURL": f"{url}/v1", "apiKey": KEY},
        "models": {_MODEL: {"name": _MODEL, "limit": limit, "tool_call": True}},
    }
    config = {
        "autoupdate": False,
        "share": "disabled",
        "model": f"simulator/{_MODEL}",
        "small_model": f"simulator/{_MODEL}",
        "provider": {"simulator": provider},
    }
    switches = ("AUTOUPDATE", "MODELS_FETCH", "LSP_DOWNLOAD", "DEFAULT_PLUGINS")
    return User(
        files={".config/opencode/opencode.json": _json(config)},
        variables={f"OPENCODE_DISABLE_{name}": "1" for name in switches},
    )


def _qwen(url: str) -> User:
    config = {
        "general": {"enableAutoUpdate": False, "disableAutoUpdate": True},
        "privacy": {"usageStatisticsEnabled": False},
        "security": {"auth": {"selectedType": "openai"}, "folderTrust": {"enabled": False}},
        "model": {"name": _MODEL},
    }
    return User(
        files={".qwen/settings.json": _json(config)},
        variables={
            "OPENAI_API_KEY": KEY,
            "OPENAI_BASE_URL": f"{url}/v1",
            "OPENAI_MODEL": _MODEL,
        },
    )


_USERS: Mapping[str, Callable[[str], User]] = {
    "claude": _claude,
    "codex": _codex,
    "opencode": _opencode,
    "qwen": _qwen,
}


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2) + "\n"
