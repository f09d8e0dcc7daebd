"""OpenAI chat completions: the whole completion, and its chunks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .errors import kind_of
from .wire import CREATED, Event, Job, new_id

_Json = dict[str, Any]


def whole(job: Job) -> _Json:
    """Return the completion of a request that isn't streamed; several texts are joined."""
    message: _Json = {"role": "assistant", "content": "".join(job.answer.texts)}
    if job.answer.use is not None:
        message["content"] = message["content"] or None
        message["tool_calls"] = [_call(job, job.arguments)]
    choice = {"index": 0, "message": message, "finish_reason": _finish_reason(job)}
    head = _head(job, "chat.completion")
    return head | {"choices": [choice], "usage": _usage(job)}


def events(job: Job) -> Iterator[Event]:
    """Yield the completion as chunks; an error ends them without `[DONE]`."""
    head = _head(job, "chat.completion.chunk")
    yield _chunk(head, {"role": "assistant", "content": ""})
    for text in job.answer.texts:
        for piece in job.pieces(text):
            yield _chunk(head, {"content": piece}, slow=True)
    fail = job.answer.fail
    if fail is not None:
        yield Event({"error": kind_of(fail.status, "chat", fail.message).body})
        return
    if job.answer.use is not None:
        yield _chunk(head, {"tool_calls": [{"index": 0} | _call(job, "")]})
        for piece in job.pieces(job.arguments):
            part = {"index": 0, "function": {"arguments": piece}}
            yield _chunk(head, {"tool_calls": [part]}, slow=True)
    yield _chunk(head, {}, finish=_finish_reason(job))
    if job.ask.wants_usage:
        yield Event(head | {"choices": [], "usage": _usage(job)})
    yield Event("[DONE]")


def _chunk(head: _Json, delta: _Json, *, finish: str | None = None, slow: bool = False) -> Event:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return Event(head | {"choices": [choice]}, chunk=slow)


def _head(job: Job, kind: str) -> _Json:
    name = new_id("chatcmpl-")
    return {"id": name, "object": kind, "created": CREATED, "model": job.ask.model}


def _call(job: Job, arguments: str) -> _Json:
    use = job.answer.use
    name = use.tool.name if use is not None else ""
    function = {"name": name, "arguments": arguments}
    return {"id": new_id("call_"), "type": "function", "function": function}


def _finish_reason(job: Job) -> str:
    return "tool_calls" if job.answer.use is not None else "stop"


def _usage(job: Job) -> _Json:
    total = job.input_tokens + job.output_tokens
    return {
        "prompt_tokens": job.input_tokens,
        "completion_tokens": job.output_tokens,
        "total_tokens": total,
    }
