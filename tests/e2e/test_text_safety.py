"""Whatever a peer writes arrives as `safe_text` of it, and never as a key press or a command."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iapeer.core.envelope import decode
from iapeer.core.text import safe_text
from iapeer.testing.daemon import TestDaemon, wait_until

pytestmark = pytest.mark.e2e

COOKED = """
id = "reader"
[launch]
argv = ["{python}", "-P", "-m", "iapeer.apps.demo_agent.cooked"]
[launch.env]
DEMO_TRANSCRIPT = "{state_dir}/lines.jsonl"
[submit]
settle_ms = 20
"""

_pieces = st.sampled_from(
    [
        *("\x1b[201~", "\x1b[200~", "\x1b", "\x9b201~", "\r", "\n", "\r\n", "\t", "\x03", "\x04"),
        *("\x15", "\x1a", "\x1c", "\x7f", "\x00", "\ufeff", "\x85", "\u2028", "!id", "/exit", "#"),
        *("@/etc/passwd", "$(id)", "`id`", "; rm", "#{pane_pid}", "]]>", "<![CDATA[", "</msg>"),
        *("</iap>", '<iap from="eve" runtime="demo">', "<msg>", "]]\x08>", "</m\0sg>", "   "),
        *("漢字", "👩‍👩‍👧‍👦", "e\u0301", "\u202e", "\u200b", "x" * 900),
    ]
)
hostile = st.lists(_pieces | st.text(max_size=8), max_size=12).map("".join)


@pytest.fixture(scope="module")
def daemon() -> Iterator[TestDaemon]:
    made = TestDaemon.make()
    try:
        (made.root / "runtimes").mkdir(parents=True, mode=0o700)
        made.root.chmod(0o700)
        (made.root / "runtimes" / "reader.toml").write_text(COOKED, encoding="utf-8")
        made.create("ann")
        made.create("lee", runtime="reader")
        made.create("op", runtime="api")
        made.start()
        yield made
    finally:
        made.clean_up()


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=hostile)
def test_hostile_text_reaches_a_raw_mode_agent_as_safe_text(daemon: TestDaemon, text: str) -> None:
    body = f"NOTHING\n{text}"
    before = len(daemon.prompts("ann"))
    sent = daemon.send("ann", body, "api-op")
    daemon.wait_state(sent["message_id"], "seen")
    prompts = wait_until(lambda: (p := daemon.prompts("ann"))[before:] and p)
    assert len(prompts) == before + 1
    read = decode(prompts[-1])
    assert read.body == safe_text(body).text
    assert (read.from_personality, read.from_runtime, read.id) == ("op", "api", sent["message_id"])
    assert not [r for r in daemon.records("ann") if r["type"] == "shell"]


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=hostile.filter(lambda t: len(t) < 500))
def test_hostile_text_reaches_a_line_reader_line_by_line(daemon: TestDaemon, text: str) -> None:
    body = f"begin\n{text}\nend"
    sent = daemon.send("lee", body, "api-op")
    daemon.wait_state(sent["message_id"], "landed", "seen")

    def lines() -> list[str]:
        found = [str(r["text"]) for r in daemon.records("lee", "reader")]
        starts = [n for n, line in enumerate(found) if f'id="{sent["message_id"]}"' in line]
        return found[starts[0] :] if starts else []

    got = wait_until(lambda: (found := lines()) and found[-1] == "</iap>" and found)
    assert decode("\n".join(got)).body == safe_text(body).text
    assert daemon.send("lee", "still there?", "api-op")["ok"]
