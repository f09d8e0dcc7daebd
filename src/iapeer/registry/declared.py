"""The runtimes a peer declares: adding one, and choosing the one it answers on by itself.

Both change the profile in the peer's folder and its record together. Nothing is taken from the
environment: whoever calls may be the session of another peer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from iapeer.core.errors import InvalidInput
from iapeer.core.identity import INFRA_RUNTIMES
from iapeer.core.names import is_valid_runtime
from iapeer.core.profile import Profile, ProfileChange, RegistryRecord
from iapeer.registry.index import Registry
from iapeer.registry.profiles import change_peer

Action = Literal["added", "flipped", "already", "skipped-infra-peer", "refused-undeclared-runtime"]


class Declared(msgspec.Struct, frozen=True):
    """What became of one peer's runtimes; `record` is how the index has it now."""

    action: Action
    record: RegistryRecord


def add_runtime(registry: Registry, personality: str, runtime: str) -> Declared:
    """Declare one more runtime; the default stays. Idempotent.

    A peer of the service manager is left alone. Raises InvalidInput (no agent's runtime),
    PeerNotFound, ProfileError, RegistryError, LockBusy, StorageError.
    """

    def decide(profile: Profile) -> tuple[Action, ProfileChange]:
        if runtime in profile.runtimes:
            return "already", ProfileChange()
        return "added", ProfileChange(runtimes=(runtime,))

    return _declare(registry, personality, runtime, decide)


def set_default_runtime(registry: Registry, personality: str, runtime: str) -> Declared:
    """Let a peer answer on another runtime that it declares; its nature stays. Idempotent.

    Raises as `add_runtime`.
    """

    def decide(profile: Profile) -> tuple[Action, ProfileChange]:
        if runtime not in profile.runtimes:
            return "refused-undeclared-runtime", ProfileChange()
        if runtime == profile.default_runtime:
            return "already", ProfileChange()
        return "flipped", ProfileChange(default_runtime=runtime)

    return _declare(registry, personality, runtime, decide)


def check_no_infra(runtime: str) -> None:
    """Refuse what is no runtime, and one whose peers the service manager holds.

    Raises InvalidInput.
    """
    if not is_valid_runtime(runtime):
        raise InvalidInput(f"invalid runtime {runtime!r}")
    if runtime in INFRA_RUNTIMES:
        raise InvalidInput(
            f"{runtime!r} is an infrastructure runtime", hint="the service manager holds its peers"
        )


def _declare(
    registry: Registry,
    personality: str,
    runtime: str,
    decide: Callable[[Profile], tuple[Action, ProfileChange]],
) -> Declared:
    """Do what `decide` says of the profile, which is the source of truth, under its lock."""
    check_no_infra(runtime)
    record = registry.snapshot().require(personality)
    if record.default_runtime in INFRA_RUNTIMES:
        return Declared("skipped-infra-peer", record)
    taken: list[Action] = []

    def edit(profile: Profile) -> Profile:
        action, change = decide(profile)
        taken.append(action)
        return profile.merged(change)

    record = change_peer(registry, personality, edit)
    return Declared(taken[-1], record)
