"""Where things are on a host: other programs look there, so the places are fixed."""

from __future__ import annotations

from pathlib import Path

import pytest

from iapeer.core import env
from iapeer.core.settings import make_settings
from iapeer.storage.paths import Paths, launch_env_path, profile_path


@pytest.mark.requirement("names:socket-folder:override", "names:socket-folder:default")
@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({}, "/h/.iapeer/socks"),
        ({env.ROOT: "/r"}, "/r/socks"),
        ({env.SOCK_DIR: "/s"}, "/s"),
        ({env.ROOT: "/r", env.SOCK_DIR: "/s"}, "/s"),
        ({env.ROOT: "/r", env.SOCK_DIR: ""}, "/r/socks"),
    ],
)
def test_sockets_are_below_the_root_unless_their_folder_is_named(
    variables: dict[str, str], folder: str
) -> None:
    assert make_settings({env.HOME: "/h", **variables}).sock_dir == Path(folder)


@pytest.mark.requirement("storage:root", "storage:layout")
def test_files_that_other_programs_read_have_their_names() -> None:
    paths = Paths(make_settings({env.HOME: "/h", env.ROOT: "/r"}).root)
    assert {
        str(found.relative_to("/r"))
        for found in (
            paths.registry,
            paths.registry_lock,
            paths.discovery,
            paths.delivery_log,
            paths.lifecycle_log,
            paths.exits_log,
            paths.lifecycle_state,
            paths.peer_home("bob"),
        )
    } == {
        "peers-profiles.json",
        "peers-profiles.lock",
        "state/iapeer/router.json",
        "logs/iapeer/delivery.log",
        "logs/iapeer/lifecycle.log",
        "logs/iapeer/exits.log",
        "state/lifecycle",
        "peers/bob",
    }
    assert profile_path(Path("/p")) == Path("/p/.iapeer/peer-profile.json")
    assert launch_env_path(Path("/p"), "claude") == Path("/p/.iapeer/runtimes/claude/launch.env")
    assert make_settings({env.HOME: "/h", env.ROOT: "/r"}).daemon_socket == paths.state / (
        "router.sock"
    )
