"""Who is speaking: addresses, the nature behind them, and the names nobody may take."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from iapeer.core.errors import InvalidInput
from iapeer.core.names import is_valid_name, is_valid_runtime

INFRA_RUNTIMES = frozenset({"notifier", "telegram"})
"""Runtimes that are always on and held by the service manager."""

RESERVED_NAMES = frozenset({"iapeer"})
"""Personalities no peer may take: notices of the core come from there."""

CORE_ADDRESS = "core-iapeer"
"""The address notices of the core are sent from."""

_SOCKET_PREFIX = "tmux-iap-"
_SOCKET_SUFFIX = ".sock"


class Intelligence(StrEnum):
    """The nature of a peer: a model, a person, or a program."""

    ARTIFICIAL = "artificial"
    NATURAL = "natural"
    ABSENT = "absent"


_LEGACY_WORDS = {"human": Intelligence.NATURAL, "scripted": Intelligence.ABSENT}
_WORDS = {nature.value: nature for nature in Intelligence} | _LEGACY_WORDS
_RUNTIME_NATURES = dict.fromkeys(
    ("telegram", "discord", "matrix", "email", "web"), Intelligence.NATURAL
) | dict.fromkeys(("notifier", "webhook", "api", "cron"), Intelligence.ABSENT)


class Identity(msgspec.Struct, frozen=True, order=True):
    """One runtime of one peer. An identity that exists is valid, so it is safe in a file name.

    Raises InvalidInput (`invalid runtime`, `invalid personality`) on construction.
    """

    runtime: str
    personality: str

    def __post_init__(self) -> None:
        if not is_valid_runtime(self.runtime):
            raise InvalidInput(f"invalid runtime {self.runtime!r}")
        if not is_valid_name(self.personality):
            raise InvalidInput(f"invalid personality {self.personality!r}")

    @property
    def address(self) -> str:
        """Return `<runtime>-<personality>`; also the name of the tmux session."""
        return f"{self.runtime}-{self.personality}"

    def __str__(self) -> str:
        return self.address


def parse_identity(text: str) -> Identity | None:
    """Read an address, split at its FIRST hyphen; None when it is none."""
    runtime, hyphen, personality = text.partition("-")
    if hyphen and is_valid_runtime(runtime) and is_valid_name(personality):
        return Identity(runtime, personality)
    return None


def socket_name(identity: Identity) -> str:
    """Return the file name of the identity's tmux socket (at most 79 characters)."""
    return f"{_SOCKET_PREFIX}{identity.address}{_SOCKET_SUFFIX}"


def parse_socket_name(text: str) -> Identity | None:
    """Read the identity out of a socket's path or file name; None when it is not one of ours."""
    name = text.rpartition("/")[2]
    if not (name.startswith(_SOCKET_PREFIX) and name.endswith(_SOCKET_SUFFIX)):
        return None
    return parse_identity(name[len(_SOCKET_PREFIX) : -len(_SOCKET_SUFFIX)])


def read_intelligence(word: str) -> Intelligence | None:
    """Read a nature, the two legacy words included; None when the word is unknown."""
    return _WORDS.get(word)


def default_intelligence(runtime: str) -> Intelligence:
    """Return the nature of a peer of that runtime which does not state its own."""
    return _RUNTIME_NATURES.get(runtime, Intelligence.ARTIFICIAL)


def stored_word(nature: Intelligence, raw: str) -> str:
    """Return the word to write for `nature` where `raw` is the one on disk ("" for none).

    The word on disk stays while it means the same: rewriting a live registry to the new words
    once broke every older reader.
    """
    return raw if read_intelligence(raw) is nature else nature.value


def stated_intelligence(word: str) -> Intelligence:
    """Read a nature a caller states on purpose.

    Raises InvalidInput naming the vocabulary.
    """
    nature = read_intelligence(word)
    if nature is None:
        raise InvalidInput(f"unknown intelligence {word!r}", hint="use artificial|natural|absent")
    return nature
