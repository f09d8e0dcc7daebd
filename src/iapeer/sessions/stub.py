"""First program of a pane: become the agent CLI without a secret on any command line.

Run as `python -I -S stub.py <handoff file>`. The file is JSON `{"argv", "env", "cwd", "wait_for"}`,
mode 0600, owned by this user; it is unlinked before the exec, so the pane's pid stays the CLI's.
Any failure prints one line and ends with status 97. Imports nothing of the package: it starts in
about 10 ms.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

FAILED = 97
"""Exit status of a stub that could not become its program."""

MAX_BYTES = 4 * 1024 * 1024

WAIT_S = 20.0
"""For the server the program needs (measured: Codex' own is ready after 0.26 s); after it the
program starts anyway and says itself what is missing."""


def main() -> None:
    """Read the handoff file, unlink it, exec. Does not return."""
    try:
        if len(sys.argv) != 2:
            _refuse("give one handoff file")
        argv, env, cwd, wait_for = _read(sys.argv[1])
        os.chdir(cwd)
        _await_file(wait_for)
        _reset_signals()
        os.execvpe(argv[0], argv, env)  # noqa: S606 - no shell is what we want
    except OSError as error:
        # The name only: the rest of argv may be private.
        name = os.fsdecode(error.filename) if error.filename else ""
        _refuse(f"{error.strerror or error}: {name}")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        _refuse("the handoff file is not what was agreed on")


def _reset_signals() -> None:
    """Give the program all signals as a login shell would.

    What is ignored stays so over an exec: Python itself ignores two, and a daemon that was started
    with `&` by a script ignores SIGINT, which would make Ctrl-C useless in every agent.
    """
    for number in signal.valid_signals():
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _await_file(path: bytes) -> None:
    """Wait until `path` is there, at most `WAIT_S`; nothing to wait for is fine."""
    deadline = time.monotonic() + WAIT_S
    while path and not os.path.exists(path) and time.monotonic() < deadline:  # noqa: PTH110
        time.sleep(0.01)


def _read(path: str) -> tuple[list[bytes], dict[bytes, bytes], bytes, bytes]:
    """Return argv, environment, folder and awaited file, as bytes: the locale has no say."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            _refuse("the handoff file is not ours")
        if found.st_mode & 0o077:
            _refuse("others can read the handoff file")
        os.unlink(path)  # noqa: PTH108 - pathlib costs more than the whole stub
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        _refuse("the handoff file is too long")
    order = json.loads(data.decode("utf-8", "surrogateescape"))
    argv = [_bytes(text) for text in order["argv"]]
    env = {_bytes(name): _bytes(value) for name, value in order["env"].items()}
    if not argv:
        raise ValueError
    return argv, env, _bytes(order["cwd"]), _bytes(order["wait_for"])


def _bytes(text: object) -> bytes:
    if not isinstance(text, str):
        raise TypeError
    return text.encode("utf-8", "surrogateescape")


def _refuse(reason: str) -> NoReturn:
    sys.stderr.write(f"iapeer: can't start the program: {reason}\n")
    sys.stderr.flush()
    os._exit(FAILED)


if __name__ == "__main__":
    main()
