"""The demo: a daemon, two agents and a person on a throw-away root, seen from the outside.

    python -m iapeer.apps.tour [runtime]

Everything goes through the public surface: the `iapeer` command, the HTTP API, the Python client,
the delivery log. Nothing is asked, the user's own root is not touched, nothing stays behind: a
second process, the keeper, owns the root and clears it away however the tour itself ends.

Exit status: 0 all went well, 1 it did not (told with the daemon's last lines), 2 there is no such
runtime, 130 and 143 Ctrl-C and SIGTERM.
"""
