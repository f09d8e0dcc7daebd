"""The table in its three shapes."""

from __future__ import annotations

import json

import pytest

from iapeer.testing.conformance import Report, Row
from iapeer.testing.conformance.report import as_json, as_markdown, as_text


def report(*rows: Row, version: str = "1.2.3") -> Report:
    return Report(
        runtime="mytool",
        title="My tool",
        program="/usr/bin/mytool",
        version=version,
        tested=("1.2.3", "1.3.0"),
        doors=("paste",),
        has_model=True,
        seconds=61.5,
        rows=rows,
    )


GOOD = Row(name="boot", title="boots", verdict="pass", figure="1.0 s | 2", seconds=1.04)
BAD = Row(name="draft", title="a draft", verdict="fail", figure="gone", hint="look", screen="> x")
NONE = Row(name="compact", title="compacts", verdict="n/a", figure="no key")


def test_the_text_is_a_table_with_what_is_known_of_failures_below() -> None:
    assert as_text(report(GOOD, BAD, NONE)).splitlines() == [
        "My tool: /usr/bin/mytool",
        "version 1.2.3 (tested)",
        "doors: paste",
        "",
        "result  capability  figure     s",
        "pass    boots       1.0 s | 2  1.0",
        "fail    a draft     gone       0.0",
        "n/a     compacts    no key     0.0",
        "",
        "draft: gone",
        "  hint: look",
        "  | > x",
        "1 passed, 1 FAILED, 1 not applicable in 62 s",
    ]


def test_markdown_is_a_table_that_bars_do_not_break() -> None:
    assert as_markdown(report(GOOD)).splitlines()[2:] == [
        "| capability | result | figure |",
        "| --- | --- | --- |",
        "| boots | pass | 1.0 s \\| 2 |",
    ]


def test_json_holds_everything() -> None:
    whole = json.loads(as_json(report(GOOD, BAD)))
    assert whole["passed"] is False
    assert whole["runtime"] == "mytool"
    assert [row["verdict"] for row in whole["rows"]] == ["pass", "fail"]


@pytest.mark.parametrize(
    ("version", "line"),
    [
        ("1.3.0", "1.3.0 (tested)"),
        ("2.0.0", "2.0.0 (NOT among the tested: 1.2.3, 1.3.0)"),
        ("", "unknown version"),
    ],
)
def test_a_version_that_nobody_tested_is_told(version: str, line: str) -> None:
    assert report(version=version).version_line == line


def test_only_a_failure_is_a_failure() -> None:
    assert report(GOOD, NONE).passed
    assert not report(GOOD, BAD).passed
