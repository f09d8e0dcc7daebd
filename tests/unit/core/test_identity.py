from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iapeer.core.errors import InvalidInput
from iapeer.core.identity import (
    CORE_ADDRESS,
    INFRA_RUNTIMES,
    RESERVED_NAMES,
    Identity,
    Intelligence,
    default_intelligence,
    parse_identity,
    parse_socket_name,
    read_intelligence,
    socket_name,
    stated_intelligence,
    stored_word,
)

identities = st.builds(
    Identity,
    st.from_regex(r"[a-z][a-z0-9]{0,31}", fullmatch=True),
    st.from_regex(r"[a-z][a-z0-9-]{0,31}", fullmatch=True),
)


@pytest.mark.requirement("names:identity:split")
def test_an_address_splits_at_its_first_hyphen() -> None:
    identity = parse_identity("claude-iapeer-memory")
    assert identity == Identity("claude", "iapeer-memory")
    assert str(identity) == "claude-iapeer-memory"


@pytest.mark.requirement("names:identity:malformed")
@pytest.mark.parametrize(
    "text", ["", "-x", "claude", "claude-", "Claude-x", "claude-X", "claude--", "a-b\n", "a-b/../c"]
)
def test_what_is_no_address_reads_as_none(text: str) -> None:
    assert parse_identity(text) is None


@pytest.mark.parametrize(
    ("runtime", "personality", "keyword"),
    [("a-b", "c", "invalid runtime"), ("claude", "../x", "invalid personality")],
)
def test_an_identity_can_not_be_built_invalid(runtime: str, personality: str, keyword: str) -> None:
    with pytest.raises(InvalidInput, match=keyword):
        Identity(runtime, personality)


@pytest.mark.requirement("names:socket:name")
@given(identities)
def test_addresses_and_socket_names_read_back(identity: Identity) -> None:
    assert parse_identity(identity.address) == identity
    assert parse_socket_name(socket_name(identity)) == identity
    assert parse_socket_name(f"/run/x/{socket_name(identity)}") == identity
    assert len(socket_name(identity)) <= 79


@pytest.mark.requirement("names:socket:name")
@pytest.mark.parametrize(
    "text",
    [
        "tmux-iap-claude.sock",
        "tmux-iap-claude-a.sock.lock",
        "xtmux-iap-claude-a.sock",
        "tmux-iap-.sock",
        "tmux-iap-claude-a.sock\n",
        "",
    ],
)
def test_foreign_socket_names_read_as_none(text: str) -> None:
    assert parse_socket_name(text) is None


def test_the_core_speaks_from_a_reserved_name() -> None:
    core = parse_identity(CORE_ADDRESS)
    assert core is not None
    assert core.personality in RESERVED_NAMES


@pytest.mark.requirement("names:intelligence:legacy")
def test_legacy_words_are_read_and_unknown_ones_are_not() -> None:
    assert read_intelligence("human") is Intelligence.NATURAL
    assert read_intelligence("scripted") is Intelligence.ABSENT
    assert [read_intelligence(word) for word in ("artificial", "natural", "absent")] == list(
        Intelligence
    )
    assert read_intelligence("Human") is None
    assert read_intelligence("") is None


@pytest.mark.requirement("names:intelligence:default")
@pytest.mark.parametrize(
    ("runtime", "nature"),
    [
        *((runtime, "natural") for runtime in ("telegram", "discord", "matrix", "email", "web")),
        *((runtime, "absent") for runtime in ("notifier", "webhook", "api", "cron")),
        ("claude", "artificial"),
        ("anything", "artificial"),
    ],
)
def test_natures_default_by_runtime(runtime: str, nature: str) -> None:
    assert default_intelligence(runtime).value == nature


@pytest.mark.requirement("names:intelligence:verbatim")
def test_the_word_on_disk_stays_while_it_means_the_same() -> None:
    assert stored_word(Intelligence.NATURAL, "human") == "human"
    assert stored_word(Intelligence.ABSENT, "human") == "absent"
    assert stored_word(Intelligence.ABSENT, "") == "absent"


@pytest.mark.requirement("names:intelligence:unknown")
def test_a_garbage_nature_is_refused_naming_the_vocabulary() -> None:
    with pytest.raises(InvalidInput, match=r"artificial\|natural\|absent"):
        stated_intelligence("robot")
    assert stated_intelligence("human") is Intelligence.NATURAL


@pytest.mark.requirement("names:infra")
def test_infra_runtimes_are_the_two_of_the_contract() -> None:
    assert sorted(INFRA_RUNTIMES) == ["notifier", "telegram"]
