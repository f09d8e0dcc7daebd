"""The proof of one-task workers: kill the daemon at random, then read what the worker wrote down.

A real daemon on a throw-away root drains the queue of one ephemeral worker, one fresh session per
task, while a seeded plan kills the daemon with SIGKILL. The worker's own record is the witness;
see `checker` for what counts as a broken promise.

    python -m iapeer.testing.workers --tasks 100 --kills 20 --seed 7
"""
