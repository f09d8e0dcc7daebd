"""One run from an empty root to a verdict; leaves nothing behind, also when it is interrupted."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from iapeer.client import hot
from iapeer.testing.daemon import AskFailed, TestDaemon

from .checker import Violation, check
from .disk import StateDisk
from .fates import fates, wait_for_rest
from .fleet import Fleet
from .history import Call, Event, History, Showing, read_history
from .options import ChaosOptions
from .plan import fault_points, make_plan
from .readers import Inboxes, agent_showings
from .remains import Remains
from .sabotage import RECOVERY_S, Saboteur
from .sampler import Sampler
from .senders import Pace, Sender, by_command, by_mcp, by_socket

PROGRESS_S = 5.0
SLACK = 30
"""Messages that may be sent beyond what the plan has come to."""
JOIN_S = 75.0


@dataclass
class Result:
    """What a run found. `complete` is False when time ran out before all was done."""

    options: ChaosOptions
    violations: list[Violation]
    outcomes: Counter[str]
    states: Counter[str]
    deeds: Counter[tuple[str, str]]
    figures: dict[str, int | str] = field(default_factory=dict)
    misdeeds: list[str] = field(default_factory=list)
    complete: bool = True
    rested: bool = True


def run(options: ChaosOptions, say: Callable[[str], None] | None = None) -> Result:
    """Do one run and return its verdict. Raises AssertionError when the daemon stays away."""
    # The MCP client tells of every broken connection; here they are what is wanted.
    logging.getLogger("mcp").setLevel(logging.CRITICAL)
    logging.getLogger("client").setLevel(logging.CRITICAL)
    tell = say or (lambda text: print(text, file=sys.stderr, flush=True))
    path = os.environ.get("PYTHONPATH")
    with ExitStack() as stack:
        # The daemon runs the code that this program runs.
        daemon = TestDaemon.make(**({"PYTHONPATH": path} if path else {}))
        stack.callback(shutil.rmtree, daemon.base, ignore_errors=True)
        tell(
            f"chaos: seed {options.seed}, {options.messages} messages, {options.kills} kills, "
            f"root {daemon.base}"
        )
        fleet = Fleet(options, daemon)
        disk = StateDisk(daemon.root / "state", options.disk)
        return _Run(options, fleet, disk, tell, stack).run()


class _Run:
    """The parts of one run and the order in which they start and end."""

    def __init__(
        self,
        options: ChaosOptions,
        fleet: Fleet,
        disk: StateDisk,
        tell: Callable[[str], None],
        stack: ExitStack,
    ) -> None:
        self._options = options
        self._fleet = fleet
        self._disk = disk
        self._tell = tell
        self._stack = stack
        self._began = time.monotonic()
        history = History(fleet.daemon.base / "history.jsonl")
        stack.callback(history.close)
        self._history = history
        self._inboxes = Inboxes(fleet, history)
        self._sampler = Sampler(fleet, history)
        self._remains = Remains(fleet, self._sampler, history)
        self._pace = Pace(options.messages)
        self._saboteur = Saboteur(fleet, self._inboxes, disk, history, self._pace)

    def run(self) -> Result:
        """See `run`."""
        self._stack.callback(self._end_everything)
        self._fleet.daemon.root.mkdir(mode=0o700)
        self._disk.mount()
        self._fleet.prepare()
        self._fleet.start()
        self._inboxes.start()
        self._sampler.start()
        senders = self._start_senders()
        complete = self._wreak()
        lasted = time.monotonic() - self._began
        for thread in senders:
            thread.join(JOIN_S)
        complete = complete and not any(thread.is_alive() for thread in senders)
        rested = self._come_to_rest()
        return self._verdict(complete=complete, rested=rested, lasted_s=lasted)

    def _start_senders(self) -> list[threading.Thread]:
        fleet, ways = self._fleet, []
        ways += [(name, by_socket, "http") for name in fleet.senders]
        ways += [(name, by_command, "cli") for name in fleet.commanders]
        ways += [(name, by_mcp, "mcp") for name in fleet.speakers]
        threads = []
        for place, (name, way, path) in enumerate(ways):
            sender = Sender(
                place, name, way, path, fleet, self._history, self._pace, self._options.seed
            )
            thread = threading.Thread(target=sender.run, name=name, daemon=True)
            thread.start()
            threads.append(thread)
        return threads

    def _wreak(self) -> bool:
        """Carry out the plan, messages and deeds in step; True when it came to its end."""
        steps = make_plan(self._options.seed, self._options.kills, fault_points())
        deadline = self._began + self._options.seconds
        per_step = self._options.messages / max(1, len(steps))
        told = 0.0
        for done, step in enumerate(steps):
            self._pace.allow(round(done * per_step) + SLACK)
            while self._pace.sent < round(done * per_step) and time.monotonic() < deadline:
                self._fleet.ensure_up()
                time.sleep(0.02)
            if time.monotonic() >= deadline:
                self._pace.done.set()
                return False
            self._saboteur.do(step)
            if time.monotonic() - told > PROGRESS_S:
                told = time.monotonic()
                self._progress(done + 1, len(steps))
        self._pace.allow(self._options.messages)
        while not self._pace.is_over and time.monotonic() < deadline:
            self._fleet.ensure_up()
            time.sleep(0.05)
        is_whole = self._pace.is_over
        self._pace.done.set()
        return is_whole

    def _progress(self, done: int, steps: int) -> None:
        self._tell(
            f"chaos: {time.monotonic() - self._began:5.0f} s, step {done}/{steps}, "
            f"{self._saboteur.kills} kills, {self._pace.sent} messages, "
            f"{self._fleet.starts} daemon starts"
        )

    def _come_to_rest(self) -> bool:
        """Stop hurting, free what is held back, and wait.

        The daemon is not restarted: what it forgot while it ran is forgotten now.
        """
        self._tell("chaos: coming to rest")
        self._saboteur.end()
        fleet = self._fleet
        fleet.ensure_up()
        for name in fleet.agents:
            self._set_free(name)
        return wait_for_rest(fleet, self._options.settle_s)

    def _set_free(self, name: str) -> None:
        """Start a peer; right after the last deed the daemon may say to try again in a second."""
        deadline = time.monotonic() + RECOVERY_S
        while True:
            self._fleet.ensure_up()
            try:
                self._fleet.daemon.ask("POST", f"/api/v1/peers/{name}/start", {})
            except (AskFailed, hot.DaemonUnreachable, hot.BadAnswer) as error:
                if time.monotonic() > deadline:
                    self._fleet.misdeeds.append(f"took no order for {RECOVERY_S:g} s: {error}")
                    return
                time.sleep(0.1)
            else:
                return

    def _verdict(self, *, complete: bool, rested: bool, lasted_s: float) -> Result:
        fleet = self._fleet
        self._history.add_all(fates(fleet))
        self._sampler.stop()
        self._inboxes.stop()
        fleet.kill(signal.SIGTERM)
        self._remains.at_rest()
        self._remains.at_end()
        self._sampler.read_logs()
        self._history.add_all(agent_showings(fleet))
        events = read_history(self._history.path)
        violations = check(events)
        return Result(
            options=self._options,
            violations=violations,
            outcomes=Counter(f"{e.path} {e.outcome}" for e in events if isinstance(e, Call)),
            states=Counter(_state_of(e) for e in events if hasattr(e, "api_state")),
            deeds=self._saboteur.counts,
            figures=self._figures(events, lasted_s),
            misdeeds=fleet.misdeeds,
            complete=complete,
            rested=rested,
        )

    def _figures(self, events: Sequence[Event], lasted_s: float) -> dict[str, int | str]:
        showings = [e for e in events if isinstance(e, Showing) and e.number]
        return {
            "messages accepted": self._pace.accepted,
            "kills": self._saboteur.kills,
            "showings": len(showings),
            "showings marked dup": sum(e.dup for e in showings),
            "messages shown more than once": sum(
                n > 1 for n in Counter(e.number for e in showings).values()
            ),
            "daemon starts": self._fleet.starts,
            "tmux control clients left by killed daemons": self._remains.clients_left,
            "recorders of deaths at the end, each with its server": self._remains.recorders_left,
            "process table samples": self._sampler.samples,
            "disk filled by": self._disk.means,
            "seconds under fire": round(lasted_s),
            "seconds in all": round(time.monotonic() - self._began),
        }

    def _end_everything(self) -> None:
        """End what was started, by id with start time; the folder goes last."""
        self._pace.done.set()
        self._saboteur.end()
        self._sampler.stop()
        self._inboxes.stop()
        if self._options.keep:
            self._keep()
        # The ledger, which knows the sessions, goes with the folder.
        self._fleet.daemon.clean_up()
        self._remains.clear()
        self._disk.unmount()

    def _keep(self) -> None:
        """Copy what a person needs to understand a violation, before it is removed."""
        target = self._fleet.daemon.base.with_name(self._fleet.daemon.base.name + "-kept")
        process = self._fleet.daemon.process
        if process is not None and process.poll() is None:
            process.kill()
            process.wait(timeout=10)
        shutil.copytree(
            self._fleet.daemon.base, target, ignore=shutil.ignore_patterns("*.sock", "ballast")
        )
        self._tell(f"chaos: kept in {target}")


def _state_of(event: Event) -> str:
    return str(getattr(event, "state", ""))
