"""The envelope: one message with its sender, as text between peers.

The parts live in `envelope_codec` (the value and its wire form), `envelope_stream` (finding
envelopes in a stream) and `envelope_compact` (the form an agent reads).
"""

from __future__ import annotations

from iapeer.core.envelope_codec import BUFFER_MAX, INSTRUCTION, Envelope, decode, encode
from iapeer.core.envelope_compact import render_for_agent
from iapeer.core.envelope_stream import extract

__all__ = [
    "BUFFER_MAX",
    "INSTRUCTION",
    "Envelope",
    "decode",
    "encode",
    "extract",
    "render_for_agent",
]
