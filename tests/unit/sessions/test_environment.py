"""A session gets what a person's shell would give it, never a secret or a name of somebody else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iapeer.core import env
from iapeer.sessions.environment import server_env, session_env

SECRETS = {
    env.SESSION_TOKEN: "t0ken",
    env.PEER_IDENTITY: "demo-eve",
    env.PEER_PERSONALITY: "eve",
    env.PEER_RUNTIME: "demo",
    env.SESSION_ID: "s",
    env.MCP_URL: "http://eve",
    env.BEARER_TOKEN: "hush",
    env.DAEMON_LOG: "1",
    env.FAULT: "paste.before_paste",
    "TMUX": "/tmp/t,1,0",
    "TMUX_PANE": "%7",
    "CLAUDECODE": "1",
    "CLAUDE_CODE_ENTRYPOINT": "cli",
    "CODEX_HOME": "/c",
}
OWN = {env.PEER_IDENTITY: "demo-ann", env.SESSION_TOKEN: "mine"}


def test_nothing_of_another_session_and_no_secret_is_inherited() -> None:
    found = session_env({**SECRETS, "HOME": "/h", "MY_KEY": "kept"}, own=OWN)
    assert {name: found[name] for name in SECRETS if name in found} == OWN
    assert (found["HOME"], found["MY_KEY"]) == ("/h", "kept")
    assert not set(found.values()) & {"t0ken", "hush", "demo-eve"}


def test_every_variable_that_a_session_is_told_about_itself_is_dropped() -> None:
    inherited = dict.fromkeys(env.PEER_VARIABLES, "eve")
    assert "eve" not in session_env(inherited, own={}).values()


def test_no_layer_can_pretend_to_be_another_peer() -> None:
    layer = {env.PEER_IDENTITY: "demo-eve", env.SESSION_TOKEN: "stolen", "A": "layer"}
    found = session_env({"A": "daemon"}, layer, own=OWN)
    assert found[env.PEER_IDENTITY] == "demo-ann"
    assert found[env.SESSION_TOKEN] == "mine"
    assert found["A"] == "layer"


def test_the_last_layer_wins_and_launch_env_may_set_what_is_stripped_from_the_daemon() -> None:
    found = session_env(
        {"CODEX_HOME": "/daemon", "X": "0"},
        {"X": "1", "CODEX_A": "manifest"},
        {"X": "2", "CODEX_HOME": "/peer"},
        own=OWN,
    )
    assert (found["X"], found["CODEX_HOME"], found["CODEX_A"]) == ("2", "/peer", "manifest")


def test_a_runtime_that_strips_nothing_keeps_foreign_variables() -> None:
    assert session_env({"CLAUDE_X": "1"}, strip=(), own={})["CLAUDE_X"] == "1"
    assert "SPAM_X" not in session_env({"SPAM_X": "1"}, strip=("SPAM",), own={})


@pytest.mark.parametrize(
    "locale",
    [
        {"LANG": "de_DE.UTF-8"},
        {"LANG": "de_DE.utf8"},
        {"LANG": "C", "LC_CTYPE": "en_US.UTF8"},
        {"LC_ALL": "C.utf-8", "LANG": "C"},
    ],
)
def test_a_utf8_locale_of_the_user_is_kept(locale: dict[str, str]) -> None:
    for found in (server_env(locale), session_env(locale, own={})):
        assert {n: found.get(n) for n in ("LANG", "LC_CTYPE", "LC_ALL")} == {
            n: locale.get(n) for n in ("LANG", "LC_CTYPE", "LC_ALL")
        }


@pytest.mark.parametrize(
    "locale",
    [{}, {"LANG": "C"}, {"LC_ALL": "POSIX", "LANG": "de_DE.UTF-8"}, {"LC_ALL": "de_DE@euro"}],
)
def test_any_other_locale_is_replaced(locale: dict[str, str]) -> None:
    assert server_env(locale)["LC_ALL"] == "C.UTF-8"
    assert session_env(locale, own={})["LC_ALL"] == "C.UTF-8"


@given(st.dictionaries(st.text(min_size=1, max_size=12), st.text(max_size=12), max_size=12))
def test_a_tmux_server_gets_an_allow_list_and_nothing_else(environ: dict[str, str]) -> None:
    allowed = {
        "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TERM"
    }  # fmt: skip
    found = server_env({**environ, **SECRETS, "API_KEY": "sk"})
    assert set(found) <= allowed
    assert found["PATH"]
    assert found["TERM"] == "xterm-256color"


def test_the_terminal_and_a_path_are_always_there() -> None:
    found = session_env({"TERM": "dumb"}, own={})
    assert found["TERM"] == "xterm-256color"
    assert found["PATH"]
