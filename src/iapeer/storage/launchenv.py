"""`launch.env`: the peer's own environment and extra arguments for one runtime."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from iapeer.storage.atomic import storage_error

START_ARGS = "PEER_START_ARGS"
"""The one key that is no variable: arguments appended after the adapter's own."""

_ASSIGNMENT = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_QUOTES = ("'", '"')


class LaunchEnv(msgspec.Struct, frozen=True):
    """What a `launch.env` says: variables in file order and start arguments."""

    variables: tuple[tuple[str, str], ...] = ()
    start_args: tuple[str, ...] = ()


def read_launch_env(path: Path) -> LaunchEnv:
    """Return the content of a `launch.env`; a missing file is an empty one.

    Bytes that are no UTF-8 reach the process unchanged (surrogateescape).

    Raises StorageError.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return LaunchEnv()
    except OSError as error:
        raise storage_error(error, path, "read") from error
    return parse_launch_env(data.decode("utf-8", "surrogateescape"))


def parse_launch_env(text: str) -> LaunchEnv:
    """Parse lines `KEY=VALUE` or `export KEY=VALUE`; the last assignment of a key wins.

    Blank lines, comments (`#` first) and lines that are no assignment are ignored, also one with
    a NUL, which no process environment can hold. White space around the value goes, then one pair
    of equal quotes around it. Nothing is substituted or unescaped.
    """
    found: dict[str, str] = {}
    for line in text.split("\n"):
        match = _ASSIGNMENT.fullmatch(line.strip())
        if match is None or "\0" in line:
            continue
        found[match[1]] = _unquote(match[2].strip())
    start_args = found.pop(START_ARGS, "").split()
    return LaunchEnv(tuple(found.items()), tuple(start_args))


def _unquote(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in _QUOTES:
        return value[1:-1]
    return value
