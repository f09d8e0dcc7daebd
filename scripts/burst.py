"""A burst from 16 senders to one live agent: everything arrives once, in order per sender.

Run as `make test-burst ARGS=2000`; prints figures and exits 1 when something is missing.
"""

from __future__ import annotations

import sys
import time
from functools import partial

from iapeer.core.envelope import decode
from iapeer.testing.daemon import TestDaemon, run_all, wait_until

SENDERS = tuple(f"s{number}" for number in range(16))


def main() -> int:
    """Send, wait, compare; return the exit status."""
    each = int(sys.argv[1] if len(sys.argv) > 1 else "2000") // len(SENDERS)
    daemon = TestDaemon.make()
    try:
        daemon.create("ann")
        daemon.create("op", *SENDERS, runtime="api")
        daemon.start()
        daemon.wait_state(daemon.send("ann", "NOTHING", "api-op")["message_id"], "seen")
        return _burst(daemon, each)
    finally:
        daemon.clean_up()


def _burst(daemon: TestDaemon, each: int) -> int:
    def send(name: str) -> int:
        for number in range(each):
            daemon.send("ann", f"NOTHING\n{name} {number}", f"api-{name}")
        return each

    began = time.monotonic()
    sent = sum(run_all([partial(send, name) for name in SENDERS]))
    accepted_s = time.monotonic() - began
    wait_until(lambda: len(daemon.prompts("ann")) > sent, 0.5 * sent + 60, "all to arrive")
    seen_s = time.monotonic() - began
    bodies = [decode(prompt).body for prompt in daemon.prompts("ann")]
    got = [body.split("\n")[1].split() for body in bodies if "\n" in body]
    in_order = all(
        [int(number) for sender, number in got if sender == name] == list(range(each))
        for name in SENDERS
    )
    sys.stdout.write(
        f"accepted {sent} in {accepted_s:.1f} s; seen {len(got)} in {seen_s:.1f} s "
        f"({seen_s / sent * 1000:.0f} ms each); once and in order per sender: {in_order}\n"
    )
    return 0 if in_order and len(got) == sent else 1


if __name__ == "__main__":
    sys.exit(main())
