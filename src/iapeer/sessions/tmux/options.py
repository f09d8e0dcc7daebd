"""The user options of a session in its tmux server: a journal that outlives the daemon."""

from __future__ import annotations

PASTED = "@iap_pasted"
"""User option that holds the marker of the last paste this server made."""

ENTERED = "@iap_entered"
"""User option that holds the marker of the last submit this server made."""

INTERRUPTED = "@iap_interrupted"
"""User option that holds the marker of the attempt whose turn we are interrupting, else empty."""

LEFT = "@iap_left"
"""User option that holds the marker of an attempt and the placeholder of its paste that stayed in
the composer after Enter, else empty."""
