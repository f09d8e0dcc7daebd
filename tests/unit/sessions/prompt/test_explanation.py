from __future__ import annotations

import re

import pytest

from iapeer.core.identity import CORE_ADDRESS, Identity
from iapeer.daemon.mcp.tool import TOOL_NAME
from iapeer.sessions.prompt.explanation import MARKER, TOKENS_MAX, explanation


@pytest.mark.parametrize("one_task", [False, True])
def test_it_is_short(one_task: bool) -> None:
    text = explanation(one_task=one_task)
    assert len(text) / 4 < TOKENS_MAX
    # A second estimate, too high for prose: each word and each sign one token, but quotes etc.
    # that come together count as one.
    assert len(re.findall(r"\w+|[^\w\s]+", text)) < TOKENS_MAX


@pytest.mark.parametrize(
    "word",
    [
        f"`{TOOL_NAME}`",
        "tool search",
        'from="NAME"',
        'id="ID"',
        "<msg>",
        'dup="maybe"',
        'sent="3 h ago"',
        '"queued": true',
        "acknowledgements",
        "carry on",
        "`/` or `!`",
    ],
)
def test_it_names_what_an_agent_meets(word: str) -> None:
    assert word in explanation()


def test_it_names_the_core_as_its_notices_do() -> None:
    core = Identity("core", "iapeer")
    assert core.address == CORE_ADDRESS
    assert f'`from="{core.personality}"`' in explanation()


def test_only_a_worker_for_one_task_is_told_how_to_end_itself() -> None:
    assert "self-done" not in explanation()
    assert explanation(one_task=True).startswith(explanation())
    assert "`iapeer self-done`" in explanation(one_task=True)


def test_it_has_a_marker_and_no_gaps() -> None:
    assert explanation().startswith(f"{MARKER}\n")
    assert "\n\n\n" not in explanation()
