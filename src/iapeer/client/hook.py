"""The hook of a session: tells the daemon what its runtime tells its hooks.

Run by the agent CLI as `python -P -m iapeer.client.hook` with the hook's JSON on stdin (`-P`:
the agent's working folder must not be able to shadow our modules). It never gets in the agent's
way: nothing on stdout, one line on stderr when it failed, exit status 0 whatever happens (2 only
for a wrong command line). Outside a session of ours there is nothing to tell, and nothing is said.
"""

from __future__ import annotations

import os
import select
import sys

from iapeer.client import hot
from iapeer.core import env

INPUT_MAX = 1 << 20
"""Bytes of hook input; a message is at most 64 KB."""
TIMEOUT_S = 3.0
"""For the input, and again for the daemon."""


def main(argv: list[str], environ: dict[str, str] | os._Environ[str]) -> int:
    """Run the hook; returns the exit status."""
    if argv:
        sys.stderr.write("usage: python -P -m iapeer.client.hook < hook.json\n")
        return 2
    if not environ.get(env.SESSION_TOKEN):
        return 0
    try:
        problem = _report(environ)
    except (OSError, ValueError, hot.BadAnswer) as error:
        problem = str(error) or type(error).__name__
    if problem:
        sys.stderr.write(f"iapeer hook: {' '.join(problem.split())[:300]}\n")
    return 0


def _report(environ: dict[str, str] | os._Environ[str]) -> str:
    """Pass the input on; returns what went wrong, "" if nothing."""
    data = _read_input(sys.stdin.fileno())
    if len(data) > INPUT_MAX:
        return f"the hook input is longer than {INPUT_MAX} bytes"
    status, answer = hot.request(
        "POST",
        "/api/v1/hook/event",
        data,
        socket_path=hot.socket_path(environ),
        headers=hot.token_header(environ),
        timeout_s=TIMEOUT_S,
    )
    if status == 200:
        return ""
    error = answer.get("error") if isinstance(answer, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return f"the daemon answered {status}: {message or 'no reason given'}"


def _read_input(fd: int) -> bytes:
    """Read to the end of the input, or one byte more than allowed.

    Raises TimeoutError when the writer stays silent for `TIMEOUT_S`.
    """
    data = bytearray()
    while len(data) <= INPUT_MAX:
        readable, _, _ = select.select([fd], [], [], TIMEOUT_S)
        if not readable:
            raise TimeoutError("the hook input did not end")
        chunk = os.read(fd, INPUT_MAX + 1 - len(data))
        if not chunk:
            break
        data += chunk
    return bytes(data)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
