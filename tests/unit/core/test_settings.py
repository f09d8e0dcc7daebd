from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iapeer.core import env
from iapeer.core.errors import ConfigError
from iapeer.core.settings import Settings, make_settings, parse_port

HOME = {"HOME": "/h"}


@pytest.mark.requirement("storage:root")
def test_without_anything_everything_lives_below_the_home() -> None:
    found = make_settings(HOME)
    assert found.root == Path("/h/.iapeer")
    assert found.sock_dir == Path("/h/.iapeer/socks")
    assert found.daemon_socket == Path("/h/.iapeer/state/iapeer/router.sock")
    assert found.runtimes_dir == Path("/h/.iapeer/runtimes")
    assert found.port == 8765


def test_no_home_at_all_never_means_the_current_folder() -> None:
    assert make_settings({}).root == Path("/nonexistent/.iapeer")
    assert make_settings({"HOME": ""}).root == Path("/nonexistent/.iapeer")


def test_flags_beat_the_environment_which_beats_the_file_which_beats_defaults() -> None:
    file = {"port": 1, "boot_limit": 7, "log_keep": 9}
    environ = {**HOME, env.PORT: "2", env.BOOT_LIMIT: "8"}
    found = make_settings(environ, file, flags={"port": 3, "boot_limit": None})
    assert (found.port, found.boot_limit, found.log_keep) == (3, 8, 9)
    assert found.log_max_bytes == 5 << 20


@pytest.mark.requirement("storage:root")
def test_paths_come_from_their_variables() -> None:
    environ = {
        **HOME,
        env.ROOT: "/r",
        env.SOCK_DIR: "/s",
        env.DAEMON_SOCKET: "/d.sock",
        env.RUNTIMES_DIR: "/m",
        env.TMUX: "/opt/tmux",
        env.BEARER_TOKEN: "t",
        env.DAEMON_LOG: "1",
    }
    found = make_settings(environ)
    assert (found.root, found.sock_dir, found.daemon_socket, found.runtimes_dir) == (
        Path("/r"),
        Path("/s"),
        Path("/d.sock"),
        Path("/m"),
    )
    assert (found.tmux, found.bearer_token, found.daemon_log) == ("/opt/tmux", "t", True)


@pytest.mark.parametrize(
    ("text", "verbose"),
    [("1", True), ("true", True), ("YES", True), ("0", False), ("no", False), ("", False)],
)
def test_every_step_of_the_supervision_is_logged_when_somebody_wants_it(
    text: str, verbose: bool
) -> None:
    found = make_settings({**HOME, env.SUPERVISE_LOG_VERBOSE: text})
    assert found.supervise_log_verbose == verbose


def test_the_service_managers_units_are_where_systemd_looks(tmp_path: Path) -> None:
    home = Path(HOME[env.HOME])
    assert make_settings(HOME).units_dir == home / ".config" / "systemd" / "user"
    assert make_settings({**HOME, env.UNITS_DIR: str(tmp_path)}).units_dir == tmp_path


def test_a_root_that_is_not_absolute_is_refused() -> None:
    with pytest.raises(ConfigError, match="IAPEER_ROOT=here is not an absolute path"):
        make_settings({**HOME, env.ROOT: "here"})


TUNING = {
    env.BOOT_LIMIT: "boot_limit",
    env.COMPOSER_TIMEOUT_MS: "composer_timeout_ms",
    env.COMPOSER_POLL_MS: "composer_poll_ms",
    env.DELIVERY_LOG_MAX_BYTES: "log_max_bytes",
    env.DELIVERY_LOG_KEEP: "log_keep",
    env.BOOT_DEADLINE_SECS: "boot_deadline_s",
    env.AUDIT_SECS: "audit_s",
    env.TTL_SECS: "ttl_s",
    env.IDLE_SECS: "idle_s",
    env.EPHEMERAL_QUIET_SECS: "ephemeral_quiet_s",
    env.EPHEMERAL_UNARMED_IDLE_SECS: "ephemeral_unarmed_idle_s",
    env.CRASHLOOP_MAX: "boots_before_broken",
    env.CRASHLOOP_WINDOW_SECS: "crashloop_window_s",
}


@pytest.mark.parametrize(("variable", "name"), TUNING.items())
@pytest.mark.parametrize("text", ["0", "-1", "", " ", "abc", "nan", "inf", "1e999", "٣", "²"])
def test_a_tuning_variable_that_is_no_positive_number_is_ignored(
    variable: str, name: str, text: str
) -> None:
    found = make_settings({**HOME, variable: text})
    assert getattr(found, name) == getattr(make_settings(HOME), name)


@pytest.mark.parametrize(("variable", "name"), TUNING.items())
def test_a_positive_number_counts(variable: str, name: str) -> None:
    assert getattr(make_settings({**HOME, variable: "17"}), name) == 17


@given(st.sampled_from(sorted(TUNING)), st.text(max_size=12))
def test_no_text_in_a_tuning_variable_is_an_error(variable: str, text: str) -> None:
    found = getattr(make_settings({**HOME, variable: text}), TUNING[variable])
    assert 0 < found < float("inf")


@pytest.mark.parametrize("text", ["-1", "65536", "http", "8765 ", "٨", "1e3"])
def test_a_bad_port_is_an_error_that_names_its_source(text: str) -> None:
    with pytest.raises(ConfigError, match="IAPEER_PORT="):
        make_settings({**HOME, env.PORT: text})
    with pytest.raises(ConfigError, match="--port="):
        parse_port(text, "--port")


def test_port_0_means_any() -> None:
    assert make_settings({**HOME, env.PORT: "0"}).port == 0


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"prot": 1}, "prot"),
        ({"port": "8765"}, "port"),
        ({"port": 99999}, "port"),
        ({"port": -1}, "port"),
        ({"boot_limit": True}, "boot_limit"),
        ({"boot_limit": 1.5}, "boot_limit"),
        ({"boot_limit": 0}, "boot_limit"),
        ({"lane_mailbox": 0}, "lane_mailbox"),
        ({"queue_limit": 0}, "queue_limit"),
        ({"composer_poll_ms": 0}, "composer_poll_ms"),
        ({"busy_poll_ms": 0}, "busy_poll_ms"),
        ({"audit_s": 0}, "audit_s"),
        ({"ttl_s": 0}, "ttl_s"),
        ({"evidence_s": 0.0}, "evidence_s"),
        ({"boot_deadline_s": -1}, "boot_deadline_s"),
        ({"boot_deadline_s": float("nan")}, "boot_deadline_s"),
        ({"wait_live_s": float("inf")}, "wait_live_s"),
        ({"daemon_log": "yes"}, "daemon_log"),
        ({"tmux": 3}, "tmux"),
        ({"sock_dir": 3}, "sock_dir"),
    ],
)
def test_a_bad_key_or_value_of_the_file_is_an_error_that_names_it(
    values: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        make_settings(HOME, values, file_name="my.toml")
    assert "my.toml" in refused.value.message
    assert named in refused.value.message
    assert refused.value.hint


@pytest.mark.parametrize("name", ["boot_backoff_s", "notice_coalesce_s", "wait_live_s"])
def test_zero_means_at_once_where_that_makes_sense(name: str) -> None:
    assert getattr(make_settings(HOME, {name: 0}), name) == 0


def test_paths_of_the_file_are_paths() -> None:
    found = make_settings(HOME, {"sock_dir": "/s", "runtimes_dir": "/m"})
    assert (found.sock_dir, found.runtimes_dir) == (Path("/s"), Path("/m"))


def test_a_variable_beats_the_same_path_in_the_file() -> None:
    found = make_settings({**HOME, env.SOCK_DIR: "/from-env"}, {"sock_dir": "/from-file"})
    assert found.sock_dir == Path("/from-env")


def test_settings_are_frozen() -> None:
    with pytest.raises(AttributeError):
        make_settings(HOME).port = 1  # type: ignore[misc]
    assert Settings.__struct_config__.frozen
