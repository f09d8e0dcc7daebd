"""Guards: small policies that refuse a message before it is accepted, with code and retry-after.

Nothing accepted is ever dropped by one. Buckets live in memory: a restart fills them again.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Protocol, TypeVar

import msgspec

from iapeer.core.clock import Clock
from iapeer.core.errors import SendRefused
from iapeer.core.identity import Intelligence
from iapeer.core.settings import Settings
from iapeer.storage.ledger.rows import NewMessage

_K = TypeVar("_K")
_V = TypeVar("_V")

REMEMBERED = 10_000
"""Pairs a guard remembers; the one unused for longest is forgotten (its bucket was full again)."""


class Attempt(msgspec.Struct, frozen=True):
    """One send that asks for admission.

    `digest` identifies the body and is empty for a program's, which nobody compares; `is_program`
    is an absent intelligence, `depth` the causal depth the message would have. `now` is monotonic
    seconds.
    """

    sender: str
    recipient: str
    digest: str
    is_program: bool
    depth: int
    now: float

    @property
    def pair(self) -> tuple[str, str]:
        """Return (sender, recipient)."""
        return (self.sender, self.recipient)


class Guard(Protocol):
    """One policy."""

    def check(self, attempt: Attempt) -> None:
        """Let the attempt pass, or raise SendRefused with `retry_after_s`; changes nothing."""

    def count(self, attempt: Attempt) -> None:
        """Take note of an attempt that every guard let pass."""


class Bucket:
    """A token bucket: `size` at once, `refill` per second after that."""

    def __init__(self, size: float, refill: float, now: float) -> None:
        self._size = size
        self._refill = refill
        self._tokens = size
        self._at = now

    def wait_s(self, now: float) -> float:
        """Return how long until one token is there; 0 when it is."""
        tokens = min(self._size, self._tokens + (now - self._at) * self._refill)
        return 0.0 if tokens >= 1 else (1 - tokens) / self._refill

    def take(self, now: float) -> None:
        """Take one token."""
        self._tokens = min(self._size, self._tokens + (now - self._at) * self._refill) - 1
        self._at = now


class PairGuard:
    """How fast one sender may write to one recipient."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._buckets: OrderedDict[tuple[str, str], Bucket] = OrderedDict()

    def check(self, attempt: Attempt) -> None:
        """Refuse with `rate_limited` when the pair's bucket is empty."""
        bucket = self._buckets.get(attempt.pair)
        wait = bucket.wait_s(attempt.now) if bucket else 0.0
        if wait > 0:
            raise _refusal(
                f"{attempt.sender} has sent {self._settings.pair_bucket:g} messages to "
                f"{attempt.recipient} in a short time",
                "rate_limited",
                wait,
            )

    def count(self, attempt: Attempt) -> None:
        """Take a token of the pair's bucket."""
        bucket = self._buckets.pop(attempt.pair, None)
        if bucket is None:
            settings = self._settings
            bucket = Bucket(settings.pair_bucket, settings.pair_refill, attempt.now)
        bucket.take(attempt.now)
        _remember(self._buckets, attempt.pair, bucket)


class HostGuard:
    """How fast the whole host may accept."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._bucket: Bucket | None = None

    def check(self, attempt: Attempt) -> None:
        """Refuse with `host_busy` when the host's bucket is empty."""
        wait = self._bucket.wait_s(attempt.now) if self._bucket else 0.0
        if wait > 0:
            raise _refusal(
                f"this host has accepted {self._settings.host_bucket:g} messages in a short time",
                "host_busy",
                wait,
            )

    def count(self, attempt: Attempt) -> None:
        """Take a token of the host's bucket."""
        if self._bucket is None:
            settings = self._settings
            self._bucket = Bucket(settings.host_bucket, settings.host_refill, attempt.now)
        self._bucket.take(attempt.now)


class RepeatGuard:
    """The same words again and again: a loop, not a message. Programs may repeat themselves."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._sent: OrderedDict[tuple[str, str, str], deque[float]] = OrderedDict()

    def check(self, attempt: Attempt) -> None:
        """Refuse with `repeated` what was sent `repeat_limit` times within the window."""
        if attempt.is_program:
            return
        times = self._sent.get((*attempt.pair, attempt.digest), deque())
        since = attempt.now - self._settings.repeat_window_s
        recent = [at for at in times if at > since]
        if len(recent) >= self._settings.repeat_limit:
            raise _refusal(
                f"{attempt.sender} has sent {attempt.recipient} the same text "
                f"{len(recent)} times within {self._settings.repeat_window_s:g} s",
                "repeated",
                recent[0] - since,
                hint="it arrived: say something new, or wait",
            )

    def count(self, attempt: Attempt) -> None:
        """Remember when this text was sent."""
        if attempt.is_program:
            return
        key = (*attempt.pair, attempt.digest)
        times = self._sent.pop(key, deque(maxlen=self._settings.repeat_limit))
        times.append(attempt.now)
        _remember(self._sent, key, times)


class DepthGuard:
    """A conversation of machines that nobody started by hand slows down after many rounds."""

    def __init__(self, settings: Settings, tell_operator: Callable[[Attempt], None]) -> None:
        self._settings = settings
        self._tell = tell_operator
        self._last: OrderedDict[tuple[str, str], float] = OrderedDict()

    def check(self, attempt: Attempt) -> None:
        """Refuse with `too_deep` more than one message a minute of a pair beyond the limit."""
        if attempt.depth <= self._settings.depth_limit:
            return
        last = self._last.get(attempt.pair)
        if last is None:
            return
        wait = last + self._settings.depth_interval_s - attempt.now
        if wait > 0:
            raise _refusal(
                f"this conversation is {attempt.depth} messages deep without a person; "
                f"{attempt.sender} may write to {attempt.recipient} once per "
                f"{self._settings.depth_interval_s:g} s",
                "too_deep",
                wait,
                hint="a person's message to either side ends the slow-down",
            )

    def count(self, attempt: Attempt) -> None:
        """Remember the pair; the operator is told once per pair."""
        if attempt.depth <= self._settings.depth_limit:
            self._last.pop(attempt.pair, None)
            return
        if attempt.pair not in self._last:
            self._tell(attempt)
        self._last.pop(attempt.pair, None)
        _remember(self._last, attempt.pair, attempt.now)


class Guards:
    """All policies, asked in order; counted only when all let pass.

    Not safe between threads: the ledger's writer thread alone asks, inside the transaction that
    accepts, so that a repeated key is answered without being counted.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        tell_operator: Callable[[Attempt], None] = lambda _attempt: None,
    ) -> None:
        self._clock = clock
        self._guards: tuple[Guard, ...] = (
            HostGuard(settings),
            PairGuard(settings),
            RepeatGuard(settings),
            DepthGuard(settings, tell_operator),
        )

    def admit(self, message: NewMessage) -> None:
        """Let pass and count. Raises SendRefused with code and `retry_after_s`."""
        is_program = message.intelligence == Intelligence.ABSENT
        attempt = Attempt(
            sender=message.sender,
            recipient=f"{message.runtime}-{message.personality}",
            digest="" if is_program else _digest(message.body),
            is_program=is_program,
            depth=message.depth,
            now=self._clock.monotonic(),
        )
        for guard in self._guards:
            guard.check(attempt)
        for guard in self._guards:
            guard.count(attempt)


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode("utf-8", "surrogatepass")).hexdigest()


def _refusal(message: str, code: str, wait_s: float, hint: str = "") -> SendRefused:
    return SendRefused(
        f"{message}; message NOT delivered",
        hint=hint or f"try again in {max(1, round(wait_s))} s",
        code=code,
        retry_after_s=round(wait_s, 3),
    )


def _remember(table: OrderedDict[_K, _V], key: _K, value: _V) -> None:
    table[key] = value
    while len(table) > REMEMBERED:
        table.popitem(last=False)
