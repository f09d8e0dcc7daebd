"""Which texts a program was given, as its model or its own record tells."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from iapeer.runtimes.spec import Record, lookup
from iapeer.testing.agents.simulated import SimulatedModel
from iapeer.testing.model_server import RecordedRequest

_ENVELOPE = "<iap "


class Given(Protocol):
    """What a program was given."""

    def main(self) -> RecordedRequest | None:
        """Return the newest request of a conversation; None without a model."""

    def texts(self, message_id: str) -> list[str]:
        """Return the texts of the newest conversation that hold a message, oldest first."""

    def raw(self, word: str) -> bool:
        """Tell whether a word stands anywhere in what was recorded."""


class ModelGiven:
    """From the requests to the simulator: the proof, because nothing comes after it.

    Only requests with tools count; the others ask for titles and the like.
    """

    def __init__(self, model: SimulatedModel) -> None:
        self._model = model
        self._read: dict[int, tuple[str, ...]] = {}

    def texts(self, message_id: str) -> list[str]:
        """Return the texts of the newest request that holds the message."""
        return texts_with(message_id, self.newest(message_id))

    def newest(self, message_id: str) -> tuple[str, ...]:
        """Return all texts of the newest request that holds a message."""
        for request in reversed(self._model.requests):
            texts = self._texts(request)
            if texts_with(message_id, texts):
                return texts
        return ()

    def raw(self, word: str) -> bool:
        """Tell whether a word stands in the body of any request."""
        wanted = word.encode()
        return any(wanted in request.body for request in self._model.requests)

    def main(self) -> RecordedRequest | None:
        """Return the newest request that asks for an answer to a peer.

        Some programs have agents of their own beside the conversation, with fewer tools.
        """
        for request in reversed(self._model.requests):
            ask = request.ask
            if ask is not None and ask.tools and ask.last_user_text.startswith(_ENVELOPE):
                return request
        return None

    def _texts(self, request: RecordedRequest) -> tuple[str, ...]:
        texts = self._read.get(request.number)
        if texts is None:
            ask = request.ask
            # A message that comes while tools run is given by some CLIs as a system note.
            kinds = {"user", "system", "result"}
            entries = ask.entries if ask is not None and ask.tools else ()
            texts = tuple(entry.text for entry in entries if entry.kind in kinds)
            self._read[request.number] = texts
        return texts


class RecordGiven:
    """From the program's own record: for one without a model."""

    def __init__(
        self, records: Sequence[Record], transcripts: Callable[[], Iterable[Path]]
    ) -> None:
        self._records = records
        self._transcripts = transcripts

    def texts(self, message_id: str) -> list[str]:
        """Return the user inputs with the message, of all sessions."""
        inputs = [text for line in self._lines() for text in self._inputs(line)]
        return texts_with(message_id, inputs)

    def raw(self, word: str) -> bool:
        """Tell whether a word stands in any record."""
        wanted = json.dumps(word)[1:-1]
        return any(wanted in json.dumps(line) for line in self._lines())

    def main(self) -> RecordedRequest | None:
        """Return None: there is no model."""
        return None

    def _lines(self) -> Iterator[dict[str, Any]]:
        for path in dict.fromkeys(self._transcripts()):
            if not path.exists():
                continue
            # The last line may be half written.
            for line in path.read_bytes().split(b"\n")[:-1]:
                found = json.loads(line)
                if isinstance(found, dict):
                    yield found

    def _inputs(self, line: dict[str, Any]) -> Iterator[str]:
        record = next((record for record in self._records if record.matches(line)), None)
        if record is not None and record.kind == "user":
            text = lookup(line, record.text)
            if isinstance(text, str):
                yield text


def texts_with(message_id: str, texts: Iterable[str]) -> list[str]:
    """Return the texts that hold a message: the head of its envelope names it."""
    return [text for text in texts if mark_of(message_id) in text]


def mark_of(message_id: str) -> str:
    """Return how the head of an envelope names a message."""
    return f'id="{message_id}"'


def body_in(text: str, message_id: str) -> str:
    """Return what stands between the marks of one message in a text that a program was given."""
    _, _, rest = text.partition(mark_of(message_id))
    return rest.partition("<msg>")[2].partition("</msg>\n</iap>")[0]
