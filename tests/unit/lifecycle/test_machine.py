"""One peer and its host under any course of events: every message is always somewhere.

The machine does what a lane does with the answers of the rules, on a clock of its own. What it may
never reach: a message that is neither delivered, nor held for a reason that ends by itself or is
somebody's order, nor refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from iapeer.core.clock import FakeClock
from iapeer.core.settings import Settings, make_settings
from iapeer.core.states import HoldReason
from iapeer.lifecycle.rules import LifecycleRules
from iapeer.routing.lanes.budget import RuntimeBudget
from iapeer.routing.lanes.presence import (
    Cause,
    Ending,
    Hold,
    Life,
    Look,
    Outcome,
    Presence,
    Reap,
    Start,
    Stay,
)

SETTINGS: Settings = make_settings({"HOME": "/h"})
LONGEST_S = SETTINGS.boot_backoff_max_s * 1.2 + 1


@dataclass
class Message:
    """`state` is waiting, with the session, done or dead; `again` counts second tries."""

    state: str = "waiting"
    reason: HoldReason | None = None
    again: int = 0


def _unheard(ev: str, **fields: object) -> None:
    """Nobody reads this log."""


class PeerMachine(RuleBasedStateMachine):
    @initialize(ephemeral=st.booleans(), seed=st.integers(0, 9))
    def begin(self, ephemeral: bool, seed: int) -> None:
        self.clock = FakeClock(1_790_000_000.0)
        self.table = LifecycleRules(SETTINGS, seed)
        self.budget = RuntimeBudget(SETTINGS.peers_before_broken, _unheard)
        self.ephemeral = ephemeral
        self.messages: list[Message] = []
        self.stopped = self.managed = False
        self.phase = "asleep"
        self.faults: list[float] = []
        self.retry_at: float | None = None
        self.armed = self.in_turn = False
        self.active_at = 0.0
        self.task: Message | None = None

    # -- what happens ---------------------------------------------------------------------------

    @rule()
    def send(self) -> None:
        if not self.stopped and len(self.messages) < 6:
            self.messages.append(Message())
            self._pump()

    @precondition(lambda self: self.phase == "booting")
    @rule(works=st.booleans())
    def boot_ends(self, works: bool) -> None:
        if works:
            self.budget.came_up("rt")
            self.phase, self.armed, self.in_turn = "live", False, False
            self.task, self.active_at = None, self.clock.monotonic()
        else:
            self.phase = "asleep"
            self.faults.append(self.clock.now())
            self.budget.failed("rt", "me", self.clock.now(), "exits at once")
        self._pump()

    @rule()
    def others_fail(self) -> None:
        for uid in ("a", "b", "c"):
            self.budget.failed("rt", uid, self.clock.now(), "exits at once")

    @rule()
    def another_probes_and_fails(self) -> None:
        if not self.budget.trouble("rt").probing:
            self.budget.begin("rt", "a")
        self.budget.failed("rt", "a", self.clock.now(), "exits at once")

    @precondition(lambda self: self.phase == "live" and self.in_turn)
    @rule(word=st.booleans())
    def turn_ends(self, word: bool) -> None:
        self.in_turn = False
        self.armed |= word
        self.active_at = self.clock.monotonic()
        if not self.ephemeral and self.task is not None:
            self.task.state, self.task = "done", None
        self._pump()

    @precondition(lambda self: self.phase == "live")
    @rule(at_the_wall=st.booleans())
    def dies(self, at_the_wall: bool) -> None:
        self._end(Cause.WALL if at_the_wall else Cause.DEATH)

    @rule(seconds=st.sampled_from([0.5, 5.0, 30.0, 400.0, 700.0, 4000.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)
        if self.retry_at is not None and self.clock.monotonic() >= self.retry_at:
            self._pump()
        self._rest()

    @rule(jump=st.floats(-1e5, 1e5))
    def the_wall_clock_jumps(self, jump: float) -> None:
        self.clock.jump(jump)

    @rule()
    def stop(self) -> None:
        self.stopped = True
        if self.phase == "live":
            self._end(Cause.STOPPED)
        self.phase = "asleep"
        self.budget.taken_back("rt", "me")
        self._pump()

    @rule()
    def start(self) -> None:
        self.stopped = False
        self.faults.clear()
        self.budget.forgive("rt")
        self._pump()

    @rule(managed=st.booleans())
    def the_service_manager(self, managed: bool) -> None:
        self.managed = managed
        self._pump()

    # -- what a lane does -----------------------------------------------------------------------

    def _waiting(self) -> list[Message]:
        return [m for m in self.messages if m.state == "waiting"]

    def _pump(self) -> None:
        self.retry_at = None
        if self.phase == "live":
            self._deliver()
        elif self.phase == "asleep" and self._waiting():
            self._wake()
        if self.phase == "booting":
            self._hold(HoldReason.WAKING)

    def _hold(self, reason: HoldReason) -> None:
        for message in self._waiting():
            message.reason = reason

    def _wake(self) -> None:
        presence = Presence(
            stopped=self.stopped,
            connects_itself=False,
            managed=self.managed,
            faults=tuple(sorted(self.faults)),
            trouble=self.budget.trouble("rt"),
            ephemeral=self.ephemeral,
        )
        answer = self.table.wake(presence, self.clock.now())
        if isinstance(answer, Start):
            assert not self.stopped
            assert not self.managed
            self.phase = "booting"
            self.budget.begin("rt", "me")
            return
        assert isinstance(answer, Hold)
        self._hold(answer.reason)
        if answer.retry_s is not None:
            self.retry_at = self.clock.monotonic() + answer.retry_s

    def _deliver(self) -> None:
        waiting = self._waiting()
        free = self.task is None and not self.in_turn
        if waiting and free:
            self.task = waiting[0]
            self.task.state, self.in_turn = "with the session", True
            self.active_at = self.clock.monotonic()
        self._hold(HoldReason.SERIAL if self.ephemeral else HoldReason.BUSY)

    def _rest(self) -> None:
        if self.phase != "live":
            return
        idle = self.clock.monotonic() - self.active_at
        life = Life(
            idle, self.ephemeral, self.armed, self.in_turn, engaged=None, managed=self.managed
        )
        answer = self.table.rest(life)
        if isinstance(answer, Look):
            engaged = not self.ephemeral and bool(self._waiting())
            life = Life(
                idle, self.ephemeral, self.armed, self.in_turn, engaged, managed=self.managed
            )
            answer = self.table.rest(life)
        if isinstance(answer, Reap):
            assert not self.managed
            assert self.ephemeral or not self.in_turn
            assert (answer.outcome == Outcome.IDLE) == (not self.ephemeral)
            self._end(Cause.REAPED)
            return
        assert isinstance(answer, Stay)
        assert answer.again_s is None or answer.again_s > 0

    def _end(self, cause: Cause) -> None:
        aftermath = self.table.after(Ending(cause, self.ephemeral, self.armed, self.in_turn))
        task, self.task = self.task, None
        if aftermath.fault:
            self.faults.append(self.clock.now())
        died = cause in (Cause.DEATH, Cause.WALL)
        if task is not None and task.state == "with the session":
            again = aftermath.task_again if self.ephemeral else died
            task.state = "done"
            if again:
                task.again += 1
                task.state = "waiting" if task.again == 1 else "dead"
        self.phase, self.in_turn = "asleep", False
        self._pump()

    # -- what must always hold ------------------------------------------------------------------

    @invariant()
    def every_message_is_somewhere(self) -> None:
        for message in getattr(self, "messages", []):
            if message.state == "with the session":
                assert self.phase == "live"
            if message.state != "waiting":
                assert message.state in ("with the session", "done", "dead")
                continue
            assert message.reason is not None
            assert self._will_move(message.reason), (self.phase, message)

    def _will_move(self, reason: HoldReason) -> bool:
        """Whether a hold ends by itself, or by whoever ordered it."""
        match reason:
            case HoldReason.STOPPED:
                return self.stopped
            case HoldReason.OFFLINE:
                return self.managed
            case HoldReason.BUSY | HoldReason.SERIAL:
                return self.phase == "live"
            case HoldReason.WAKING | HoldReason.BROKEN:
                if self.phase == "booting":
                    return True
                assert self.retry_at is not None
                return self.retry_at - self.clock.monotonic() <= LONGEST_S
            case _:
                return False


TestPeerMachine = PeerMachine.TestCase
TestPeerMachine.settings = hypothesis_settings(max_examples=150, stateful_step_count=40)
