"""An agent's terminal program as far as a router can tell: notes when which message arrived.

Raw mode, a composer on the screen, and one line `<mark> <time.time()>` in the file `NOTES` for the
first byte that belongs to a message. A message is known by its mark, see `measure.body_of`. With
`ECHO` set it shows what was typed, which some routers look for. Standard library only: it is
started with `-I`.
"""

from __future__ import annotations

import os
import re
import time
import tty

MARK = re.compile(rb"<m:([\w-]+)>")
PASTE_BEGIN, PASTE_END = b"\x1b[200~", b"\x1b[201~"
EMPTY = b"\x1b[2J\x1b[H> "
FULL = b"\x1b[2J\x1b[H> [Pasted text #1]"


def main() -> None:
    """Read until the end."""
    tty.setraw(0)
    notes = os.open(os.environ["NOTES"], os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    echo = bool(os.environ.get("ECHO"))
    os.write(1, b"\x1b[?2004h" + EMPTY)
    data, inside, first = b"", False, 0.0
    while chunk := os.read(0, 1 << 16):
        if not data:
            first = time.time()
        data += chunk
        if echo:
            os.write(1, chunk)
        if PASTE_BEGIN in chunk:
            inside = True
        if PASTE_END in data and inside:
            inside = False
            if not echo:
                os.write(1, FULL)
        if not inside and b"\r" in data.rpartition(PASTE_END)[2]:
            for mark in MARK.findall(data):
                os.write(notes, b"%s %.6f\n" % (mark, first))
            data = b""
            os.write(1, EMPTY)


if __name__ == "__main__":
    main()
