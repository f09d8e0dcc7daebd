"""A program in raw mode with a composer: notes when the first byte of a paste came, and the Enter.

Standard library only: it is started with `-I`. One line for each event in the file `NOTES`.
"""

from __future__ import annotations

import os
import time
import tty

PASTE_BEGIN, PASTE_END = b"\x1b[200~", b"\x1b[201~"
EMPTY = b"\x1b[2J\x1b[H> "
FULL = b"\x1b[2J\x1b[H> [Pasted text #1]"


def main() -> None:
    """Read until the end."""
    tty.setraw(0)
    notes = os.open(os.environ["NOTES"], os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    os.write(1, b"\x1b[?2004h" + EMPTY)
    data, inside = b"", False
    while chunk := os.read(0, 1 << 16):
        now = time.time()
        data += chunk
        if not inside and PASTE_BEGIN in data:
            inside = True
            os.write(notes, f"{now!r}\n".encode())
        if inside and PASTE_END in data:
            inside, data = False, data.partition(PASTE_END)[2]
            os.write(1, FULL)
        if not inside and b"\r" in data:
            data = b""
            os.write(1, EMPTY)
            os.write(notes, f"{now!r}\n".encode())


if __name__ == "__main__":
    main()
