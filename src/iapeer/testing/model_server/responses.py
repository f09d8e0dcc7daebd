"""The OpenAI responses API: the whole response, and its events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .director import ToolUse
from .errors import kind_of
from .rules import Fail
from .wire import CREATED, Event, Job, new_id

_Json = dict[str, Any]


def whole(job: Job) -> _Json:
    """Return the response of a request that isn't streamed."""
    output = [_message(new_id("msg_"), text) for text in job.answer.texts]
    if job.answer.use is not None:
        output.append(_call(job.answer.use, job.arguments))
    return _finished(job, _response(job), output)


def events(job: Job) -> Iterator[Event]:
    """Yield the response as a stream; an error ends it with `response.failed`."""
    for number, (name, data) in enumerate(_events(job)):
        event = {"type": name, "sequence_number": number, **data}
        yield Event(event, name, chunk=name.endswith(".delta"))


def _events(job: Job) -> Iterator[tuple[str, _Json]]:
    response = _response(job)
    yield "response.created", {"response": response}
    yield "response.in_progress", {"response": response}
    output: list[_Json] = []
    for text in job.answer.texts:
        item = _message(new_id("msg_"), text)
        yield from _text_events(job, len(output), item, text)
        output.append(item)
    fail = job.answer.fail
    if fail is not None:
        yield "response.failed", {"response": _failed(response, fail)}
        return
    if job.answer.use is not None:
        item = _call(job.answer.use, job.arguments)
        yield from _call_events(job, len(output), item)
        output.append(item)
    yield "response.completed", {"response": _finished(job, response, output)}


def _text_events(job: Job, index: int, item: _Json, text: str) -> Iterator[tuple[str, _Json]]:
    opened = item | {"status": "in_progress", "content": []}
    yield "response.output_item.added", {"output_index": index, "item": opened}
    place = {"item_id": item["id"], "output_index": index, "content_index": 0}
    empty = {"type": "output_text", "text": "", "annotations": []}
    yield "response.content_part.added", place | {"part": empty}
    for piece in job.pieces(text):
        yield "response.output_text.delta", place | {"delta": piece}
    yield "response.output_text.done", place | {"text": text}
    yield "response.content_part.done", place | {"part": item["content"][0]}
    yield "response.output_item.done", {"output_index": index, "item": item}


def _call_events(job: Job, index: int, item: _Json) -> Iterator[tuple[str, _Json]]:
    opened = item | {"status": "in_progress", "arguments": ""}
    yield "response.output_item.added", {"output_index": index, "item": opened}
    place = {"item_id": item["id"], "output_index": index}
    for piece in job.pieces(job.arguments):
        yield "response.function_call_arguments.delta", place | {"delta": piece}
    yield "response.function_call_arguments.done", place | {"arguments": job.arguments}
    yield "response.output_item.done", {"output_index": index, "item": item}


def _response(job: Job) -> _Json:
    return {
        "id": new_id("resp_"),
        "object": "response",
        "created_at": CREATED,
        "status": "in_progress",
        "model": job.ask.model,
        "output": [],
        "error": None,
        "incomplete_details": None,
        "parallel_tool_calls": False,
        "usage": None,
    }


def _finished(job: Job, response: _Json, output: list[_Json]) -> _Json:
    usage = {
        "input_tokens": job.input_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": job.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": job.input_tokens + job.output_tokens,
    }
    return response | {"status": "completed", "output": output, "usage": usage}


def _failed(response: _Json, fail: Fail) -> _Json:
    kind = kind_of(fail.status, "responses", fail.message)
    error = {"code": kind.code or kind.type, "message": kind.message}
    return response | {"status": "failed", "error": error}


def _message(item_id: str, text: str) -> _Json:
    return {
        "id": item_id,
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": text, "annotations": []}],
    }


def _call(use: ToolUse, arguments: str) -> _Json:
    """Return the call's item; a tool of a namespace is named with it, or Codex won't find it."""
    item = {
        "id": new_id("fc_"),
        "type": "function_call",
        "status": "completed",
        "call_id": new_id("call_"),
        "name": use.tool.name,
        "arguments": arguments,
    }
    return item | {"namespace": use.tool.namespace} if use.tool.namespace else item
