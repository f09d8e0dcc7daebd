"""`iapeer dev`: tools for those who add an agent CLI. This process becomes the tool."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from iapeer.core.errors import UsageError

from . import output
from .context import load_settings
from .grammar import Call

_MODULES: Mapping[str, str] = {
    "conformance": "iapeer.testing.conformance",
    "model-server": "iapeer.testing.model_server",
}
_TAKES: Mapping[str, Sequence[str]] = {
    "conformance": ("path", "env", "home-file", "timeout", "markdown", "json"),
    "model-server": ("port", "script"),
}
_PLAIN = frozenset({"markdown", "json"})


def dev(call: Call) -> int:
    """Become the tool; its exit status is this command's. Raises UsageError."""
    action = call.need("action")
    if action not in _MODULES:
        raise UsageError(f"there is no action {action!r}", hint=", ".join(_MODULES))
    others = {name for names in _TAKES.values() for name in names} - set(_TAKES[action])
    strange = sorted(name for name in others if call.has(name))
    if strange:
        raise UsageError(f"{action} takes no --{strange[0]}")
    words = [sys.executable, "-P", "-m", _MODULES[action], *_words(call, action)]
    output.flush()
    os.execv(sys.executable, words)  # noqa: S606 - no shell is the point


def _words(call: Call, action: str) -> list[str]:
    words = []
    for name in _TAKES[action]:
        if name in _PLAIN:
            words += [f"--{name}"] if call.has(name) else []
        else:
            words += [f"--{name}={value}" for value in call.every(name)]
    if action == "conformance":
        if not call.has("runtime"):
            raise UsageError("conformance needs <runtime>", hint="iapeer dev conformance claude")
        if call.has("json") and call.has("markdown"):
            raise UsageError("--json and --markdown exclude each other")
        words += [f"--runtimes={load_settings().runtimes_dir}", "--", call.need("runtime")]
    elif call.has("runtime"):
        raise UsageError(f"{action} does not know what to do with {call.need('runtime')!r}")
    return words
