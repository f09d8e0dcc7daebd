"""A model that says what a script tells it: real agent CLIs can be pointed at it, offline.

Speaks the Anthropic messages API, the OpenAI responses API and OpenAI chat completions, whole and
streamed, on loopback only. Rules look at the last user text and say, call tools, fail or take
their time; every request is kept for assertions.

    python -m iapeer.testing.model_server --port 0 --script rules.toml
"""

from __future__ import annotations

from .record import RecordedRequest, secret_digest
from .rules import Call, Fail, Hold, Rule, Say, Script, Slow, Step
from .script import load_script, parse_script
from .server import ModelServer

__all__ = [
    "Call",
    "Fail",
    "Hold",
    "ModelServer",
    "RecordedRequest",
    "Rule",
    "Say",
    "Script",
    "Slow",
    "Step",
    "load_script",
    "parse_script",
    "secret_digest",
]
