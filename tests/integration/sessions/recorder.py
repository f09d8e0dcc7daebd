"""A raw-mode program: appends every byte it reads to the file it is given."""

from __future__ import annotations

import os
import sys
import time
import tty
from pathlib import Path

tty.setraw(0)
if "bracketed" in sys.argv:
    os.write(1, b"\x1b[?2004h")
os.write(1, b"READY\r\n")
log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
while "busy" in sys.argv and not Path(sys.argv[1] + ".go").exists():
    time.sleep(0.01)
while data := os.read(0, 65536):
    os.write(log, data)
