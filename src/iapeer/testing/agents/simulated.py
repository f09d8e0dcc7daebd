"""A scripted model in a thread of its own, for tests that are no coroutines."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any, Self, TypeVar

from iapeer.testing.model_server import ModelServer, RecordedRequest, Rule, Script

_ANSWER_S = 15.0
"""The server's own limits for its start and stop are shorter."""
_Result = TypeVar("_Result")


class SimulatedModel:
    """A `ModelServer` that runs beside the caller.

    with SimulatedModel([Rule("hello", (Say("hi"),))]) as model:
        ...  # start an agent that was told model.url
        asked = model.wait_for(lambda request: request.has_tools)
    """

    def __init__(self, rules: Iterable[Rule] | Script = (), *, port: int = 0) -> None:
        self._server = ModelServer(rules, port=port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="simulated model")

    @property
    def url(self) -> str:
        """The address without a path; Anthropic's base URL, with `/v1` OpenAI's."""
        return self._server.url

    @property
    def requests(self) -> tuple[RecordedRequest, ...]:
        """The requests that have come, oldest first; also after the end."""
        return self._server.requests

    def wait_for(
        self, wanted: Callable[[RecordedRequest], bool], timeout_s: float = 30.0
    ) -> RecordedRequest:
        """Return the oldest request that is `wanted`, waiting for it to come.

        Raises AssertionError after `timeout_s`, listing what came instead.
        """
        try:
            return self._do(self._server.wait_for(wanted, timeout_s), timeout_s + _ANSWER_S)
        except TimeoutError:
            came = [(request.path, request.has_tools) for request in self.requests]
            raise AssertionError(f"no such request within {timeout_s:g} s, only {came}") from None

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._do(self._server.start())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._do(self._server.stop())
        finally:
            self._end()

    def _do(self, work: Coroutine[Any, Any, _Result], timeout_s: float = _ANSWER_S) -> _Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_ANSWER_S)
        self._loop.close()
