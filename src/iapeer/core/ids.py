"""Ids and tokens: how they look, how they are made, how they are compared.

Randomness is passed in by the caller's choice of function (`secrets` by default), so that
tests can make ids predictable without touching global state.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable

MESSAGE_ID_LENGTH = 12
"""Characters of a message id: 12 x 5 bits = 60 bits, unique per ledger by its primary key."""

_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_PAIRS = tuple(first + second for second in _ALPHABET for first in _ALPHABET)
"""Ten bits are two characters, the lower five the first."""
_MESSAGE_ID = re.compile(r"[a-z2-7]{12}")


def new_message_id(random_bytes: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """Return a fresh message id: 12 characters of lower-case base32 (RFC 4648 alphabet)."""
    number = int.from_bytes(random_bytes(8), "big")
    return "".join(
        [_PAIRS[(number >> bits) & 1023] for bits in range(0, 5 * MESSAGE_ID_LENGTH, 10)]
    )


def is_message_id(text: str) -> bool:
    """Tell whether `text` has the form of a message id."""
    return _MESSAGE_ID.fullmatch(text) is not None


def new_uid() -> str:
    """Return a fresh peer uid: 32 hexadecimal characters; state keys on it, never on the name."""
    return secrets.token_hex(16)


def new_token() -> str:
    """Return a fresh session token: 32 random bytes as 64 hexadecimal characters."""
    return secrets.token_hex(32)


def token_digest(token: str) -> str:
    """Return the SHA-256 of a token in hexadecimal; only this is ever stored."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def equal(left: str, right: str) -> bool:
    """Compare two secrets in constant time."""
    return hmac.compare_digest(
        left.encode("utf-8", "surrogatepass"), right.encode("utf-8", "surrogatepass")
    )
