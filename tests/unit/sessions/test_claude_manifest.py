"""The manifest of Claude Code against screens and words of 2.1.197, as they were measured."""

from __future__ import annotations

from datetime import datetime

import pytest

from iapeer.runtimes.catalog import SHIPPED
from iapeer.runtimes.manifest import load_manifest
from iapeer.sessions.evidence import Fact
from iapeer.sessions.failure import reset_of
from iapeer.sessions.model import marks_of
from iapeer.sessions.screen import read_screen

CLAUDE = load_manifest(SHIPPED / "claude.toml")
RULE = "─" * 160
NOW = datetime(2026, 11, 22, 14, 0).astimezone().timestamp()


def screen(*above: str, footer: str) -> str:
    return "\n".join((*above, "", RULE, "❯\u00a0", RULE, f"  {footer}", "", ""))


FOOTER = "⏵⏵ bypass permissions on (shift+tab to cycle) · ← for agents"


@pytest.mark.parametrize(
    ("shown", "busy"),
    [
        (screen("✻ Brewed for 6s", footer=FOOTER), False),
        (screen("● ok", "✻ Baked for 0s", footer="paste again to expand"), False),
        (screen("● and so on…", "  * a list…", footer=FOOTER), False),
        (screen("✽ Incubating… (2s · ↓ 8 tokens)", footer="esc to interrupt"), True),
        # After a paste the footer says something else for as long as a tool runs.
        (screen("  ⎿ \u00a0Running…", "· Dilly-dallying…", footer="paste again to expand"), True),
        (screen("✶ Wandering… (0s · ↓ 8 tokens)", footer="paste again to expand"), True),
        (screen("✻ API error · Retrying in 1s · attempt 1/2", footer=FOOTER), True),
    ],
)
def test_a_running_turn_is_seen_whatever_the_footer_says(shown: str, busy: bool) -> None:
    assert read_screen(shown, marks_of(CLAUDE)).busy is busy


def _clock(hour: int, minute: int = 0) -> float:
    return datetime(2026, 11, 22, hour, minute).astimezone().timestamp()


@pytest.mark.parametrize(
    ("words", "reset"),
    [
        ("API Error: Request rejected (429) · slow down", None),
        ("You've hit your session limit · resets 3pm (Europe/Berlin)", _clock(15)),
        ("You've hit your weekly limit · resets 3:30pm (UTC)", _clock(15, 30)),
        ("Claude AI usage limit reached|1795400000", 1795400000.0),
        ("Request rejected (429) · please try again in 7 s", NOW + 7),
        ("You've hit your fast limit · resets in 2h 5m", NOW + 2 * 3600 + 300),
        ("resets in 20m", NOW + 1200),
        ("resets 15 things", None),
    ],
)
def test_the_time_of_a_reset_is_read_off_the_words_of_an_error(
    words: str, reset: float | None
) -> None:
    fact = Fact("turn_end", status="api_error", error="rate_limit", words=words)
    assert reset_of(fact, CLAUDE.errors, NOW) == reset


def test_the_token_goes_in_the_one_header_that_the_program_keeps_out_of_its_log() -> None:
    (file,) = [file for file in CLAUDE.launch.files if file.path.endswith("mcp.json")]
    headers = file.content["mcpServers"]["iapeer"]["headers"]
    assert headers == {
        "X-IAPeer-Identity": "${{PEER_IDENTITY}}",
        "Authorization": "Bearer ${{PEER_TOKEN}}",
    }
