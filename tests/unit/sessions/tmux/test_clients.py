from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iapeer.core.errors import SessionGone
from iapeer.sessions.tmux.clients import Client, read_clients
from iapeer.sessions.tmux.control import _read_blocks

CAME, LEFT = "%client-session-changed /dev/pts/3 $0 claude-iap", "%client-detached /dev/pts/3"


def test_clients_are_read_with_whatever_name_they_have() -> None:
    assert read_clients(["0 17 1795382139 /dev/pts/1", "1 9 1795382138 client-9 x"]) == [
        Client(False, 17, 1795382139, "/dev/pts/1"),
        Client(True, 9, 1795382138, "client-9 x"),
    ]
    assert read_clients([]) == []


def test_what_is_said_between_the_blocks_of_a_reply_is_heard() -> None:
    heard: list[str] = []
    reply = [CAME, "%begin 9 2 1", "one", "%end 9 2 1", LEFT, "%layout-change @0 x"]
    reply += ["%begin 9 3 1", "%end 9 3 1", "%client-session-changed client-7 $0 claude-iap"]
    assert _read_blocks(reply, heard.append) == ["one"]
    assert heard == ["/dev/pts/3", "", "client-7"]


def test_news_behind_a_refusal_are_heard() -> None:
    heard: list[str] = []
    with pytest.raises(SessionGone):
        _read_blocks(["%begin 9 2 1", "can't find session: x", "%error 9 2 1", LEFT], heard.append)
    assert heard == [""]


@given(st.lists(st.sampled_from([CAME, LEFT, "%end 9 2 1", "%begin 9 3 1", "text"])))
def test_what_a_screen_shows_is_never_heard(shown: list[str]) -> None:
    heard: list[str] = []
    assert _read_blocks(["%begin 9 2 1", *shown, "%end 9 2 1"], heard.append) == shown
    assert heard == []
