"""The proof that delivery never lies: kill everything at random, then check what was said.

A real daemon on a throw-away root carries messages between many senders and readers while a
seeded plan kills the daemon, the tmux servers and the agents, stops programs, fills the disk and
makes fsync fail. Everything that was answered and everything that was shown goes into a history;
pure functions then look in it for a lie. See `checker` for what counts as one.

    python -m iapeer.testing.chaos --messages 5000 --kills 300 --seed 7
"""
