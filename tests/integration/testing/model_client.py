"""The three protocols as a client speaks them: requests are built, answers are put together."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2

from iapeer.testing.model_server.asks import Protocol

PROTOCOLS: tuple[Protocol, ...] = ("messages", "responses", "chat")
PATHS = {
    "messages": "/v1/messages",
    "responses": "/v1/responses",
    "chat": "/v1/chat/completions",
}
SCHEMA = {"type": "object", "properties": {"to": {"type": "string"}}}


@dataclass(frozen=True)
class Said:
    text: str
    tool: str = ""
    namespace: str = ""
    args: Any = None
    call_id: str = ""
    failed: str = ""
    ended: bool = True


def tools(protocol: Protocol) -> list[dict[str, Any]]:
    if protocol == "messages":
        return [{"name": "mcp__iapeer__send_to_peer", "input_schema": SCHEMA}]
    function = {"name": "send_to_peer", "parameters": SCHEMA}
    if protocol == "responses":
        inner = [{"type": "function", **function}]
        return [
            {"type": "function", "name": "shell", "parameters": SCHEMA},
            {"type": "namespace", "name": "mcp__iapeer", "tools": inner},
        ]
    return [{"type": "function", "function": function | {"name": "iapeer_send_to_peer"}}]


def ask(
    protocol: Protocol, text: str, *, stream: bool = True, with_tools: bool = True
) -> dict[str, Any]:
    history = "input" if protocol == "responses" else "messages"
    body: dict[str, Any] = {"model": "m", "stream": stream}
    body[history] = [{"role": "user", "content": text}]
    if protocol == "messages":
        body["max_tokens"] = 100
    if with_tools:
        body["tools"] = tools(protocol)
    return body


def with_result(protocol: Protocol, body: dict[str, Any], said: Said, result: str) -> Any:
    """The next request: the history so far, the call, and what the tool answered."""
    args = json.dumps(said.args)
    if protocol == "messages":
        use = {"type": "tool_use", "id": said.call_id, "name": said.tool, "input": said.args}
        done = {"type": "tool_result", "tool_use_id": said.call_id, "content": result}
        note = {"type": "text", "text": "<system-reminder>a note</system-reminder>"}
        more: list[dict[str, Any]] = [
            {"role": "assistant", "content": [use]},
            {"role": "user", "content": [done, note]},
            {"role": "system", "content": "The user sent a new message"},
        ]
        return body | {"messages": body["messages"] + more}
    if protocol == "responses":
        call = {"type": "function_call", "call_id": said.call_id, "name": said.tool}
        output = {"type": "function_call_output", "call_id": said.call_id, "output": result}
        return body | {"input": [*body["input"], call | {"arguments": args}, output]}
    function = {"name": said.tool, "arguments": args}
    asked = {"id": said.call_id, "type": "function", "function": function}
    more = [
        {"role": "assistant", "content": None, "tool_calls": [asked]},
        {"role": "tool", "tool_call_id": said.call_id, "content": result},
    ]
    return body | {"messages": body["messages"] + more}


def read(protocol: Protocol, response: httpx2.Response) -> Said:
    """Put an answer together, streamed or not."""
    response.raise_for_status()
    if "event-stream" not in response.headers["content-type"]:
        return _WHOLE[protocol](response.json())
    return _STREAMED[protocol](list(sse(response.content)))


def sse(content: bytes) -> Iterator[tuple[str, Any]]:
    assert content.endswith(b"\n\n") or not content
    for block in content.split(b"\n\n")[:-1]:
        *names, data = block.split(b"\n")
        name = names[0].removeprefix(b"event: ").decode() if names else ""
        raw = data.removeprefix(b"data: ")
        yield name, "[DONE]" if raw == b"[DONE]" else json.loads(raw)


def _messages(message: Any) -> Said:
    said = Said("".join(b["text"] for b in message["content"] if b["type"] == "text"))
    for block in message["content"]:
        if block["type"] == "tool_use":
            assert message["stop_reason"] == "tool_use"
            said = Said(said.text, block["name"], args=block["input"], call_id=block["id"])
    return said


def _messages_stream(events: list[tuple[str, Any]]) -> Said:
    assert [name for name, _data in events] == [data["type"] for _name, data in events]
    assert events[0][0] == "message_start"
    message = events[0][1]["message"]
    partial, failed = "", ""
    for name, data in events:
        if name == "content_block_start":
            assert data["index"] == len(message["content"])
            message["content"].append(data["content_block"])
        elif name == "content_block_delta":
            delta = data["delta"]
            if delta["type"] == "text_delta":
                message["content"][data["index"]]["text"] += delta["text"]
            partial += delta.get("partial_json", "")
        elif name == "message_delta":
            message |= data["delta"]
        elif name == "error":
            failed = data["error"]["type"]
    if partial:
        message["content"][-1]["input"] = json.loads(partial)
    said = _messages(message)
    ended = events[-1][0] == "message_stop"
    return Said(said.text, said.tool, "", said.args, said.call_id, failed, ended)


def _responses(response: Any) -> Said:
    assert response["status"] == "completed"
    said = Said("")
    for item in response["output"]:
        if item["type"] == "message":
            said = Said(said.text + item["content"][0]["text"])
        else:
            args = json.loads(item["arguments"])
            namespace = item.get("namespace", "")
            said = Said(said.text, item["name"], namespace, args, item["call_id"])
    return said


def _responses_stream(events: list[tuple[str, Any]]) -> Said:
    assert [name for name, _data in events] == [data["type"] for _name, data in events]
    assert [data["sequence_number"] for _name, data in events] == list(range(len(events)))
    assert events[0][0] == "response.created"
    text = "".join(d["delta"] for name, d in events if name == "response.output_text.delta")
    args = "".join(
        d["delta"] for name, d in events if name == "response.function_call_arguments.delta"
    )
    name, last = events[-1]
    if name == "response.failed":
        return Said(text, failed=last["response"]["error"]["code"], ended=False)
    assert name == "response.completed"
    said = _responses(last["response"])
    done = [data["item"] for name, data in events if name == "response.output_item.done"]
    assert done == last["response"]["output"]
    assert said.text == text
    assert said.args == (json.loads(args) if args else None)
    return said


def _chat(completion: Any) -> Said:
    choice = completion["choices"][0]
    text = choice["message"]["content"] or ""
    calls = choice["message"].get("tool_calls")
    assert choice["finish_reason"] == ("tool_calls" if calls else "stop")
    if not calls:
        return Said(text)
    function = calls[0]["function"]
    args = json.loads(function["arguments"])
    return Said(text, function["name"], args=args, call_id=calls[0]["id"])


def _chat_stream(events: list[tuple[str, Any]]) -> Said:
    text, args, tool, call_id, failed = "", "", "", "", ""
    for _name, data in events:
        if data == "[DONE]":
            continue
        failed = data.get("error", {}).get("code", failed)
        for choice in data.get("choices", ()):
            text += choice["delta"].get("content", "")
            for call in choice["delta"].get("tool_calls", ()):
                call_id = call.get("id", call_id)
                tool = call["function"].get("name", tool)
                args += call["function"]["arguments"]
    found = json.loads(args) if args else None
    return Said(text, tool, "", found, call_id, failed, events[-1][1] == "[DONE]")


_WHOLE = {"messages": _messages, "responses": _responses, "chat": _chat}
_STREAMED = {
    "messages": _messages_stream,
    "responses": _responses_stream,
    "chat": _chat_stream,
}
