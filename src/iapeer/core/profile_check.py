"""What is wrong with a profile, for `verify`: every finding, not only the first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from iapeer.core.identity import read_intelligence
from iapeer.core.names import is_valid_name, is_valid_runtime, normalize_name
from iapeer.core.profile_fields import is_uid


class Issue(msgspec.Struct, frozen=True):
    """One finding. A profile without errors is conformant, whatever its warnings."""

    severity: Literal["error", "warning"]
    field: str
    message: str


def validate_profile(raw: object, folder_name: str) -> list[Issue]:
    """Check a parsed profile against the standard; `folder_name` is the last part of its cwd.

    Never raises. What `Profile.from_json` refuses is an error here too.
    """
    if not isinstance(raw, dict):
        return [Issue("error", "root", "not an object")]
    checks = (
        _check_personality(raw, folder_name),
        _check_runtime(raw),
        _check_runtimes(raw),
        _check_texts(raw),
        _check_words(raw),
        _check_interfaces(raw),
    )
    return [issue for check in checks for issue in check]


def _check_personality(raw: dict[str, object], folder_name: str) -> Iterator[Issue]:
    value = raw.get("personality")
    name = value.strip() if isinstance(value, str) else ""
    expected = normalize_name(folder_name)
    if not name:
        yield Issue("error", "personality", "missing personality")
    elif not is_valid_name(name):
        yield Issue("error", "personality", f"invalid personality {name!r}")
    elif name != expected:
        yield Issue(
            "warning", "personality", f"{name!r} differs from the folder's name {expected!r}"
        )


def _check_runtime(raw: dict[str, object]) -> Iterator[Issue]:
    default, mirror = raw.get("default_runtime"), raw.get("runtime")
    if default is None or default == "":
        if not is_valid_runtime(mirror):
            yield Issue("error", "default_runtime", "invalid runtime: no default_runtime")
        else:
            yield Issue("warning", "default_runtime", 'only the legacy key "runtime" is set')
    elif not is_valid_runtime(default):
        yield Issue("error", "default_runtime", f"invalid runtime {default!r}")
    elif mirror is not None and mirror != default:
        yield Issue("warning", "default_runtime", f'mirror "runtime" diverged: {mirror!r}')


def _check_runtimes(raw: dict[str, object]) -> Iterator[Issue]:
    runtimes = raw.get("runtimes")
    if runtimes is None:
        return
    if not isinstance(runtimes, list):
        yield Issue("error", "runtimes", "not a list")
        return
    for runtime in runtimes:
        if not is_valid_runtime(runtime):
            yield Issue("error", "runtimes", f"invalid runtime {runtime!r}")
    default = raw.get("default_runtime") or raw.get("runtime")
    if is_valid_runtime(default) and default not in runtimes:
        yield Issue("error", "runtimes", f"does not contain the default {default!r}")


def _check_texts(raw: dict[str, object]) -> Iterator[Issue]:
    for field in ("description", "initial_prompt"):
        if raw.get(field) is not None and not isinstance(raw[field], str):
            yield Issue("error", field, "not a string")
    prompt = raw.get("initial_prompt")
    if isinstance(prompt, str) and prompt.strip().startswith(("!", "/")):
        yield Issue(
            "warning", "initial_prompt", 'begins with "!" or "/", which a CLI runs as a command'
        )


def _check_words(raw: dict[str, object]) -> Iterator[Issue]:
    word = raw.get("intelligence")
    known = isinstance(word, str) and (not word or read_intelligence(word) is not None)
    if word is not None and not known:
        yield Issue(
            "error",
            "intelligence",
            f"unknown intelligence {word!r}, use artificial|natural|absent",
        )
    policy = raw.get("wake_policy")
    if policy is not None and policy != "ephemeral":
        yield Issue("warning", "wake_policy", f'{policy!r} is ignored, only "ephemeral" counts')
    uid = raw.get("uid")
    if uid is not None and uid != "" and not is_uid(uid):
        yield Issue("error", "uid", "invalid uid: not 32 hexadecimal characters")


def _check_interfaces(raw: dict[str, object]) -> Iterator[Issue]:
    if "aliases" in raw:
        yield Issue("warning", "aliases", "legacy place")
    interfaces = raw.get("interfaces")
    if interfaces is None:
        return
    if not isinstance(interfaces, dict):
        yield Issue("error", "interfaces", "interfaces is not an object")
        return
    telegram = interfaces.get("telegram")
    if isinstance(telegram, dict) and "aliases" in telegram:
        yield Issue("warning", "interfaces.telegram.aliases", "legacy place")
