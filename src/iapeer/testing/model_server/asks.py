"""A request as the script sees it, whatever protocol it came in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from iapeer.core.errors import InvalidInput

Protocol = Literal["messages", "responses", "chat"]

_CONTEXT = ("<system-reminder>", "<environment_context>", "<user_instructions>")
"""CLIs put their own notes into the user's messages, in blocks that start like this."""


class Tool(msgspec.Struct, frozen=True):
    """An offered function; Codex wraps those of one MCP server in a namespace."""

    name: str
    namespace: str = ""


class Entry(msgspec.Struct, frozen=True):
    """One text of the conversation, and who it is from."""

    kind: Literal["system", "user", "assistant", "result"]
    text: str


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One request to the model; `schema` is the JSON schema its answer must have, if any."""

    protocol: Protocol
    model: str
    stream: bool
    tools: tuple[Tool, ...]
    entries: tuple[Entry, ...]
    schema: dict[str, Any] | None = None
    wants_usage: bool = True

    def texts(self, kind: str) -> tuple[str, ...]:
        """All texts of one kind, oldest first."""
        return tuple(entry.text for entry in self.entries if entry.kind == kind)

    @property
    def last_user_text(self) -> str:
        """What the user said last; empty when nothing was said."""
        return (self.texts("user") or ("",))[-1]

    @property
    def rounds(self) -> int:
        """How many tool results have come since the user's last text."""
        count = 0
        for entry in reversed(self.entries):
            if entry.kind == "user":
                break
            count += entry.kind == "result"
        return count


def read_ask(protocol: Protocol, body: bytes) -> Ask:
    """Decode a request's body; raises InvalidInput when it is none of this protocol."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the body is not JSON: {error}") from error
    member = "input" if protocol == "responses" else "messages"
    if not isinstance(found, dict) or not isinstance(found.get(member), list | str):
        raise InvalidInput(f"the body has no {member}")
    if found.get("previous_response_id"):
        raise InvalidInput("responses are not kept: send the whole input again")
    items = found[member]
    if isinstance(items, str):
        items = [{"role": "user", "content": items}]
    first = found.get("instructions" if protocol == "responses" else "system")
    entries = [Entry("system", text) for text in _texts(first)]
    for item in items:
        entries.extend(_entries(item))
    return Ask(
        protocol=protocol,
        model=str(found.get("model") or "fake-model"),
        stream=found.get("stream") is True,
        tools=tuple(_tools(found.get("tools"))),
        entries=tuple(entries),
        schema=_schema(found),
        wants_usage=bool(_dict(found.get("stream_options")).get("include_usage")),
    )


def _entries(item: Any) -> Iterator[Entry]:
    """Read one message or input item."""
    item = _dict(item)
    if str(item.get("type", "")).endswith("_call_output"):
        yield Entry("result", "\n".join(_texts(item.get("output"))))
        return
    role = item.get("role")
    if role == "tool":
        yield Entry("result", "\n".join(_texts(item.get("content"))))
    elif role in {"system", "developer"}:
        yield from (Entry("system", text) for text in _texts(item.get("content")))
    elif role == "assistant":
        yield from (Entry("assistant", text) for text in _texts(item.get("content")))
    elif role == "user":
        yield from _user_entries(item.get("content"))


def _user_entries(content: Any) -> Iterator[Entry]:
    """Tell the user's own words from tool results and from the notes of the CLI."""
    for block in content if isinstance(content, list) else [content]:
        if isinstance(block, dict) and block.get("type") == "tool_result":
            yield Entry("result", "\n".join(_texts(block.get("content"))))
            continue
        for text in _texts(block):
            yield Entry("system" if text.startswith(_CONTEXT) else "user", text)


def _texts(content: Any) -> list[str]:
    """Return the texts of a content: a string, a block, or a list of them."""
    blocks = content if isinstance(content, list) else [content]
    texts = (_dict(block).get("text", block) for block in blocks)
    return [text for text in texts if isinstance(text, str)]


def _tools(offered: Any, namespace: str = "") -> Iterator[Tool]:
    for found in offered if isinstance(offered, list) else ():
        tool = _dict(found)
        if tool.get("type") == "namespace" and not namespace:
            yield from _tools(tool.get("tools"), str(tool.get("name")))
            continue
        name = _dict(tool.get("function")).get("name") or tool.get("name") or tool.get("type")
        if isinstance(name, str):
            yield Tool(name, namespace)


def _schema(body: dict[str, Any]) -> dict[str, Any] | None:
    """Find the wanted JSON schema: each protocol has its own place for it."""
    for place in (
        _dict(_dict(body.get("text")).get("format")),
        _dict(body.get("output_format")),
        _dict(_dict(body.get("output_config")).get("format")),
        _dict(body.get("response_format")),
    ):
        if place.get("type") == "json_schema":
            return _dict(place.get("schema") or _dict(place.get("json_schema")).get("schema"))
    return None


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
