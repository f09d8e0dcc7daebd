from __future__ import annotations

from typing import Any

from iapeer.routing.lanes.budget import RuntimeBudget
from iapeer.routing.lanes.presence import RuntimeTrouble
from iapeer.storage.ledger.rows import DeathRow


class Heard:
    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, ev: str, **fields: object) -> None:
        self.lines.append((ev, fields))


def _broken(log: Heard) -> RuntimeBudget:
    budget = RuntimeBudget(3, log)
    for n, uid in enumerate("aabc"):
        budget.failed("x", uid, float(n), "exits")
    return budget


def test_only_several_peers_break_a_runtime_and_it_is_said_once() -> None:
    log = Heard()
    budget = RuntimeBudget(3, log)
    for n in range(5):
        budget.failed("x", "a", float(n), "exits")
    budget.failed("x", "b", 5.0, "exits")
    assert not budget.is_broken("x")
    assert log.lines == []
    for n in range(4):
        budget.failed("x", "c", 6.0 + n, "exits")
    assert budget.trouble("x") == RuntimeTrouble(3, 10, 9.0, probing=False)
    assert log.lines == [("runtime-broken", {"runtime": "x", "peers": 3, "reason": "exits"})]
    assert not budget.is_broken("y")
    assert len(budget.problems()) == 1


def test_one_boot_at_a_time_probes_a_broken_runtime() -> None:
    budget = _broken(Heard())
    assert budget.refuses("x", "a")
    budget.begin("x", "a")
    assert budget.trouble("x").probing
    assert not budget.refuses("x", "a")
    assert budget.refuses("x", "b")
    budget.taken_back("x", "b")
    assert budget.trouble("x").probing
    budget.taken_back("x", "a")
    assert not budget.trouble("x").probing


def test_a_good_boot_or_a_word_of_the_operator_sets_all_free() -> None:
    for mend, cause in ((RuntimeBudget.came_up, "came-up"), (RuntimeBudget.forgive, "start")):
        log = Heard()
        freed: list[str] = []
        budget = _broken(log)
        budget.mended = freed.append
        mend(budget, "x")
        mend(budget, "x")
        assert freed == ["x"]
        assert log.lines[1:] == [("runtime-mended", {"runtime": "x", "cause": cause})]
        assert budget.trouble("x") == RuntimeTrouble()
        assert budget.problems() == []


def test_a_boot_of_a_runtime_that_is_fine_is_never_refused() -> None:
    budget = RuntimeBudget(3, Heard())
    budget.begin("x", "a")
    assert not budget.refuses("x", "b")
    assert budget.trouble("x") == RuntimeTrouble()


def test_a_new_daemon_goes_on_from_the_ledger() -> None:
    budget = RuntimeBudget(2, Heard())
    failed = [DeathRow(uid=u, runtime="x", kind="boot", at=t, detail="") for u, t in
              (("a", 1.0), ("b", 2.0), ("c", 3.0), ("d", 4.0))]  # fmt: skip
    budget.load(failed, {"x": 2.0})
    assert budget.trouble("x") == RuntimeTrouble(2, 2, 4.0, probing=False)
