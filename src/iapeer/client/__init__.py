"""Clients of the daemon: a hot one for `send` and hooks, an async one for programs."""
