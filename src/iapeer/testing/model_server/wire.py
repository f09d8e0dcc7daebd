"""What the three protocols share: events, ids, token counts, cutting a text into chunks."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

import msgspec

from .asks import Ask
from .director import Answer

CREATED = 1_767_225_600
"""The time in every answer (2026-01-01): nothing here depends on a clock."""


class Event(msgspec.Struct, frozen=True):
    """One server-sent event; `chunk` marks those a slow stream waits for."""

    data: dict[str, Any] | str
    name: str = ""
    chunk: bool = False

    def encode(self) -> bytes:
        """Return its bytes on the wire: ASCII only, so no text can end a line of the stream."""
        data = self.data if isinstance(self.data, str) else json.dumps(self.data)
        head = f"event: {self.name}\n" if self.name else ""
        return f"{head}data: {data}\n\n".encode("ascii")


class Job(msgspec.Struct, frozen=True):
    """One answer to be written, and the request it is for."""

    ask: Ask
    answer: Answer
    input_tokens: int
    chunk_chars: int

    @property
    def output_tokens(self) -> int:
        """A token is four characters here."""
        args = self.arguments if self.answer.use else ""
        return 1 + (sum(map(len, self.answer.texts)) + len(args)) // 4

    @property
    def arguments(self) -> str:
        """The call's arguments as JSON; empty without a call."""
        use = self.answer.use
        return json.dumps(use.args) if use is not None else ""

    def pieces(self, text: str) -> Iterator[str]:
        """Cut a text into chunks of `chunk_chars` characters."""
        for start in range(0, len(text), self.chunk_chars):
            yield text[start : start + self.chunk_chars]

    def chunks_of(self, texts: int) -> int:
        """How many chunks the first `texts` texts have."""
        return sum(1 for text in self.answer.texts[:texts] for _piece in self.pieces(text))

    @property
    def chunks(self) -> int:
        """How many chunks the answer has."""
        whole = (*self.answer.texts, self.arguments)
        return sum(1 for text in whole for _piece in self.pieces(text))


def new_id(prefix: str) -> str:
    """Return an id no earlier server has given: histories are resumed on new servers."""
    return f"{prefix}{secrets.token_hex(12)}"
