"""The Anthropic messages API: the whole message, and its events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .errors import kind_of
from .wire import Event, Job, new_id


def whole(job: Job) -> dict[str, Any]:
    """Return the message of a request that isn't streamed."""
    content: list[dict[str, Any]] = [{"type": "text", "text": text} for text in job.answer.texts]
    use = job.answer.use
    if use is not None:
        block = {"type": "tool_use", "id": new_id("toolu_"), "name": use.tool.name}
        content.append(block | {"input": use.args})
    message = _message(job) | {"content": content, "stop_reason": _stop_reason(job)}
    message["usage"]["output_tokens"] = job.output_tokens
    return message


def events(job: Job) -> Iterator[Event]:
    """Yield the message as a stream; an error ends it without `message_stop`."""
    yield _event({"type": "message_start", "message": _message(job)})
    yield _event({"type": "ping"})
    for index, text in enumerate(job.answer.texts):
        deltas = [{"type": "text_delta", "text": piece} for piece in job.pieces(text)]
        yield from _block(index, {"type": "text", "text": ""}, deltas)
    if job.answer.fail is not None:
        yield _event({"type": "error", "error": _failure(job)})
        return
    use = job.answer.use
    if use is not None:
        start = {"type": "tool_use", "id": new_id("toolu_"), "name": use.tool.name, "input": {}}
        parts = [
            {"type": "input_json_delta", "partial_json": piece}
            for piece in job.pieces(job.arguments)
        ]
        yield from _block(len(job.answer.texts), start, parts)
    yield _event(
        {
            "type": "message_delta",
            "delta": {"stop_reason": _stop_reason(job), "stop_sequence": None},
            "usage": {"output_tokens": job.output_tokens},
        }
    )
    yield _event({"type": "message_stop"})


def _block(index: int, start: dict[str, Any], deltas: list[dict[str, str]]) -> Iterator[Event]:
    yield _event({"type": "content_block_start", "index": index, "content_block": start})
    for delta in deltas:
        data = {"type": "content_block_delta", "index": index, "delta": delta}
        yield Event(data, "content_block_delta", chunk=True)
    yield _event({"type": "content_block_stop", "index": index})


def _event(data: dict[str, Any]) -> Event:
    return Event(data, str(data["type"]))


def _message(job: Job) -> dict[str, Any]:
    return {
        "id": new_id("msg_"),
        "type": "message",
        "role": "assistant",
        "model": job.ask.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {
            "input_tokens": job.input_tokens,
            "output_tokens": 1,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
        },
    }


def _stop_reason(job: Job) -> str:
    return "tool_use" if job.answer.use is not None else "end_turn"


def _failure(job: Job) -> dict[str, Any]:
    fail = job.answer.fail
    return kind_of(fail.status, "messages", fail.message).body if fail is not None else {}
