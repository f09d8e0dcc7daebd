"""Senders of a load, as a process of their own: `load SOCKET SENDERS EACH MARK|ping`."""

from __future__ import annotations

import sys

from benchmarks.house import send_request
from benchmarks.wire import encode, per_second

PING = "ping"


def main() -> None:
    """Send messages that bear the mark, or ask for nothing, and print the answers per second."""
    senders, each, mark = int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    requests = [
        encode("/api/v1/ping") if mark == PING else send_request(number=f"{mark} {sender}")
        for sender in range(senders)
    ]
    sys.stdout.write(f"{per_second(sys.argv[1], requests, each)}\n")


if __name__ == "__main__":
    main()
