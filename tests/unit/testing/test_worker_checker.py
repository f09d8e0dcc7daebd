"""The checker of worker runs finds every broken promise, and none where all were kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from iapeer.core.envelope import Envelope, encode
from iapeer.core.identity import Intelligence
from iapeer.testing.workers.checker import Fate, Found, Shown, Span, check
from iapeer.testing.workers.plan import (
    WorkerOptions,
    answers,
    body_of,
    make_plan,
    result_in,
    task_in,
)
from iapeer.testing.workers.runner import read_records


def _shown(place: int, number: int | None, session: str, **more: Any) -> Shown:
    return Shown(
        **{
            "place": place,
            "number": number,
            "session": session,
            "dup": False,
            "finished": True,
            **more,
        }
    )


def _span(session: str, began: float, ended: float | None) -> Span:
    return Span(id=session, began=began, ended=ended)


GOOD = Found(
    tasks=2,
    shown=[_shown(0, 0, "a"), _shown(1, 1, "b")],
    fates=[Fate(number=n, state="seen", dup=False) for n in range(2)],
    spans=[_span("a", 1.0, 2.0), _span("b", 2.0, 3.0)],
    results={0: 1},
    answering=frozenset({0}),
)


def _kinds(**changes: Any) -> set[str]:
    return {found.kind for found in check(msgspec.structs.replace(GOOD, **changes))}


def test_a_run_that_kept_its_promises_has_no_violations() -> None:
    assert check(GOOD) == []


def test_a_task_of_a_killed_session_may_come_again_with_its_mark() -> None:
    again = [
        _shown(0, 0, "a", finished=False),
        _shown(1, 0, "b", dup=True),
        _shown(2, 1, "c"),
    ]
    spans = [*GOOD.spans, _span("c", 3.0, 4.0)]
    assert _kinds(shown=again, spans=spans, killed=frozenset({"a"})) == set()
    assert _kinds(shown=again, spans=spans) == set()


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"shown": GOOD.shown[:1]}, "lost"),
        ({"shown": [*GOOD.shown, _shown(2, 1, "c")]}, "unmarked"),
        ({"shown": [*GOOD.shown, _shown(2, 1, "c", dup=True)]}, "reruns"),
        ({"shown": [_shown(1, 0, "a"), _shown(0, 1, "b")]}, "order"),
        ({"shown": [_shown(0, 0, "a"), _shown(1, 1, "a")]}, "shared"),
        ({"shown": [_shown(0, 0, "a"), _shown(1, None, "b")]}, "lost"),
        ({"shown": [_shown(0, 0, "a"), _shown(1, 1, "b", finished=False)]}, "unfinished"),
        ({"spans": [_span("a", 1.0, 2.5), _span("b", 2.0, 3.0)]}, "overlap"),
        ({"spans": [_span("a", 1.0, 2.0), _span("b", 2.0, None)]}, "overlap"),
        ({"fates": GOOD.fates[:1]}, "state"),
        ({"fates": [GOOD.fates[0], Fate(number=1, state="failed", dup=True)]}, "state"),
        ({"fates": [GOOD.fates[0], Fate(number=1, state="held", dup=False)]}, "state"),
        ({"results": {}}, "answers"),
        ({"results": {0: 2}}, "answers"),
    ],
)
def test_every_broken_promise_is_found(changes: dict[str, Any], kind: str) -> None:
    assert kind in _kinds(**changes)


def test_the_plan_is_a_function_of_its_seed_and_holds_all_kills() -> None:
    options = WorkerOptions(tasks=50, kills=20, worker_kills=3, seed=5)
    plan = make_plan(options)
    assert plan == make_plan(options)
    assert plan != make_plan(msgspec.structs.replace(options, seed=6))
    assert [kill.victim for kill in plan].count("daemon") == 20
    assert [kill.victim for kill in plan].count("worker") == 3
    assert [kill.after for kill in plan] == sorted(kill.after for kill in plan)


def test_tasks_and_their_results_are_told_by_their_texts() -> None:
    bodies = [body_of(1, n) for n in range(40)]
    assert [task_in(body) for body in bodies] == list(range(40))
    assert {answers(1, n) for n in range(40)} == {True, False}
    assert task_in("Task 1") is None
    assert result_in("result-7") == 7
    assert result_in("a result-7") is None


def test_a_workers_own_records_are_read_in_the_order_of_time(tmp_path: Path) -> None:
    def record(name: str, task: int, at: str, dup: str | None, status: str) -> Path:
        envelope = Envelope(
            from_personality="op",
            from_runtime="api",
            from_intelligence=Intelligence.ABSENT,
            body=body_of(1, task),
            ts="2026-01-01T00:00:00+00:00",
            id="abcdefabcdef",
            dup=dup,
        )
        lines = [
            {"type": "user", "text": encode(envelope), "ts": at},
            {"type": "turn", "op": "start", "ts": at},
            {"type": "turn", "op": "end", "status": status, "ts": at},
        ]
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(f"{json.dumps(one)}\n" for one in lines) + '{"ty', encoding="utf-8")
        return path

    later = record("later", 4, "2026-01-01T00:00:02.000Z", "maybe", "interrupted")
    sooner = record("sooner", 3, "2026-01-01T00:00:01.000Z", None, "done")
    assert read_records([later, sooner]) == [
        _shown(0, 3, "sooner"),
        _shown(1, 4, "later", dup=True, finished=False),
    ]
