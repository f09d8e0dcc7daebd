"""The hashes below were told by codex-cli 0.169.0 itself (`hooks/list` of its app-server)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from iapeer.core.errors import InvalidInput
from iapeer.registry.memory.hooks import hook_hash, read_hooks, status_of, trust_hooks

SMOKE = "/tmp/iapeer-codex-hooks-smoke/bin/stamp.sh"


def command(text: str = "c", **more: Any) -> dict[str, Any]:
    return {"type": "command", "command": text, **more}


def hooks_file(folder: Path, hooks: object) -> Path:
    path = folder / "hooks.json"
    path.write_text(json.dumps({"hooks": hooks}), encoding="utf-8")
    return path


@pytest.mark.requirement("memory:hooks:hash")
@pytest.mark.parametrize(
    ("event", "text", "hash_"),
    [
        (
            "session_start",
            f"{SMOKE} user-hooks-json-sessionstart",
            "c21b34240dd15d7184bf391f13e820399cb4b8e97c22347689316f8d02207391",
        ),
        (
            "session_start",
            f"{SMOKE} user-hooks-json-sessionstart-V2",
            "5727103dc6b7409ae2a811561e28de70b625a2bdd28f8715a73e6542836f34fe",
        ),
        (
            "post_tool_use",
            f"{SMOKE} proj-hooks-json-posttooluse",
            "86f96ab754e05851c6f2f9b162bd99c70359099cdb6c93c114d0e6df42971030",
        ),
    ],
)
def test_the_known_vectors(event: str, text: str, hash_: str) -> None:
    assert hook_hash(event, None, command(text)) == f"sha256:{hash_}"


@pytest.mark.requirement("memory:hooks:hash", "memory:hooks:async")
@pytest.mark.parametrize(
    ("event", "matcher", "handler", "begin"),
    [
        ("post_tool_use", "Write|Edit",
         command('echo é "q" & <x>', timeout=0, statusMessage="hé"), "2311da9b63d0bb23"),
        ("post_tool_use", "Write|Edit", command("b", **{"async": True}), "c869dcfc4617139b"),
        ("post_tool_use", "Write|Edit", command(timeout=5), "575218532cb1b908"),
        ("post_tool_use", "", command(), "981556af01cbff78"),
        ("post_tool_use", "*", command(timeoutSec=7), "c51d04f81f739cb9"),
        ("pre_tool_use", "x", command(), "1e33881716040ffc"),
        ("permission_request", "x", command(), "a236e94f72019bd6"),
        ("pre_compact", "x", command(), "8f470a03050c5d03"),
        ("post_compact", "x", command(), "650d3929d3d54854"),
        ("subagent_start", "x", command(), "36cce66c3dde638a"),
        ("subagent_stop", "x", command(), "b78aef5cb9a9cd9a"),
        ("user_prompt_submit", "x", command(), "7c96ebb87f4cd36c"),
        ("stop", "x", command(), "5ae6b7c83d3eac02"),
        ("interrupt", "x", command(), "59a1cda313d9579e"),
        ("interrupt", None, command(timeout=9), "8a870d0b0c70f204"),
        ("session_end", "x", command(), "9f39fd39383db0e6"),
        ("session_end", "x", command(timeout=0), "9f39fd39383db0e6"),
        ("session_end", "x", command(timeout=90), "1e4fda9cbcd7fa43"),
        ("pre_model_request", "x", command(), "9be8c9fdfe73b0d1"),
        ("post_model_request", "x", command(), "f26c98b78666e21a"),
        ("session_start", "startup", command(" c "), "45d7dad71a566edf"),
        ("session_start", "startup", command(commandWindows="z"), "6392f4a99d252ef7"),
        ("session_start", "startup", command(timeout=None), "6392f4a99d252ef7"),
        ("session_start", "startup", command(additionalContextLimit=5), "8e7bde2f3de42ea0"),
        ("stop", None, command(additionalContextLimit=5), "5ae6b7c83d3eac02"),
    ],
)  # fmt: skip
def test_the_hash_is_what_codex_computes(
    event: str, matcher: str | None, handler: dict[str, Any], begin: str
) -> None:
    assert hook_hash(event, matcher, handler).startswith(f"sha256:{begin}")


@pytest.mark.requirement("memory:hooks:entries")
def test_a_hook_is_named_by_file_event_group_and_number(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real = hooks_file(
        tmp_path / "real",
        {
            "PostToolUse": [
                {"matcher": "x", "hooks": [command(" "), {"type": "prompt"}, command()]},
                {"hooks": []},
                {"hooks": [command("d")]},
            ],
            "Stop": [{"matcher": "x", "hooks": [command()]}],
        },
    )
    link = tmp_path / "hooks.json"
    link.symlink_to(real)
    found = read_hooks(link)
    assert [(hook.event, hook.key) for hook in found] == [
        ("post_tool_use", f"{real}:post_tool_use:0:2"),
        ("post_tool_use", f"{real}:post_tool_use:2:0"),
        ("stop", f"{real}:stop:0:0"),
    ]
    assert found[2].hash == hook_hash("stop", None, command())


@pytest.mark.requirement("memory:hooks:refused")
@pytest.mark.parametrize(
    ("hooks", "told"),
    [
        ({"Nonsense": []}, "unknown event 'Nonsense'"),
        ([], "hooks must be an object"),
        ({"Stop": {}}, "Stop must be a list"),
        ({"Stop": [1]}, r"Stop\[0\] must be an object"),
        ({"Stop": [{"matcher": 1}]}, "matcher must be a string"),
        ({"Stop": [{"hooks": [1]}]}, r"hooks\[0\] must be an object"),
        ({"Stop": [{"hooks": [{"type": "command"}]}]}, "command must be a string"),
        ({"Stop": [{"hooks": [command(timeout=2.5)]}]}, "timeout must be a whole number"),
        ({"Stop": [{"hooks": [command(timeout=True)]}]}, "timeout must be a whole number"),
        ({"Stop": [{"hooks": [command(statusMessage=1)]}]}, "statusMessage must be a string"),
    ],
)
def test_a_file_codex_would_not_load_is_refused(tmp_path: Path, hooks: object, told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        read_hooks(hooks_file(tmp_path, hooks))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="does not exist"):
        read_hooks(tmp_path / "hooks.json")


@pytest.mark.requirement("memory:hooks:status")
def test_hooks_are_missing_then_trusted_and_drift_when_they_change(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('# c\n[hooks.state."/x:stop:0:0"]\ntrusted_hash = "y"\n', encoding="utf-8")
    path = hooks_file(tmp_path, {"Stop": [{"hooks": [command(), command("d")]}]})
    hooks = read_hooks(path)
    assert status_of(config, hooks) == ("missing", "missing")
    trust_hooks(config, hooks)
    assert status_of(config, hooks) == ("trusted", "trusted")
    assert trust_hooks(config, hooks).changed is False
    changed = read_hooks(hooks_file(tmp_path, {"Stop": [{"hooks": [command(), command("e")]}]}))
    assert status_of(config, changed) == ("trusted", "drift")
    assert config.read_text(encoding="utf-8").startswith("# c\n[hooks.state.")
    assert '"/x:stop:0:0"' in config.read_text(encoding="utf-8")
