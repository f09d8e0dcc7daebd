"""A line reader that knows nothing of raw mode: stands for any interactive program in the tests.

`python -m iapeer.apps.demo_agent.cooked` prints `> `, reads a line, prints `heard: <line>` and
appends it to DEMO_TRANSCRIPT as a `user` record. `exit [status]` as a line leaves. The terminal's
own line editing is in force, so the kernel cuts lines at 4095 bytes (Linux, canonical mode).
"""

from __future__ import annotations

import os
import sys

from .transcript import Transcript


def main() -> int:
    """Read lines until `exit` or the end of input; return the exit status."""
    transcript = Transcript(os.environ.get("DEMO_TRANSCRIPT", ""), "")
    # Bytes, not `input()`: readline would switch the terminal to raw mode.
    while True:
        sys.stdout.write("> ")
        sys.stdout.flush()
        raw = sys.stdin.buffer.readline()
        if not raw:
            return 0
        line = raw.decode("utf-8", "replace").removesuffix("\n")
        word, _, status = line.strip().partition(" ")
        if word == "exit":
            return int(status) & 255 if status.isdecimal() else 0
        transcript.write("user", text=line)
        shown = "".join(ch if ch.isprintable() else "\u00b7" for ch in line)
        print(f"heard: {shown}")


if __name__ == "__main__":
    sys.exit(main())
