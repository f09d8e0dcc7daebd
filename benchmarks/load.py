"""Senders of a load, as a process of their own: `load SOCKET SENDERS EACH MARK`."""

from __future__ import annotations

import sys

from benchmarks.house import send_request
from benchmarks.wire import per_second


def main() -> None:
    """Send, and print the accepted messages per second."""
    senders, each, mark = map(int, sys.argv[2:5])
    requests = [send_request(number=f"{mark} {sender}") for sender in range(senders)]
    sys.stdout.write(f"{per_second(sys.argv[1], requests, each)}\n")


if __name__ == "__main__":
    main()
