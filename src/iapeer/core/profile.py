"""The local profile `<cwd>/.iapeer/peer-profile.json`, the source of truth of one peer.

Reading, changing and writing it are here; `record` holds its projection in the host index and
`profile_check` the findings of `verify`.
"""

from __future__ import annotations

from typing import Self

import msgspec

from iapeer.core.errors import ProfileError
from iapeer.core.identity import (
    Intelligence,
    default_intelligence,
    stated_intelligence,
    stored_word,
)
from iapeer.core.profile_check import Issue, validate_profile
from iapeer.core.profile_fields import DESCRIPTION_MAX, Fields, clamp_description, put_in_order
from iapeer.core.record import RegistryRecord

__all__ = [
    "DESCRIPTION_MAX",
    "Issue",
    "Profile",
    "ProfileChange",
    "RegistryRecord",
    "clamp_description",
    "drift",
    "project",
    "validate_profile",
]

_EPHEMERAL = "ephemeral"


class ProfileChange(msgspec.Struct, frozen=True, kw_only=True):
    """What a writer wants changed; an empty field keeps what is there.

    `runtimes` are added to the present ones; `intelligence` is a word as a caller states it.
    """

    default_runtime: str = ""
    runtimes: tuple[str, ...] = ()
    description: str = ""
    intelligence: str = ""
    initial_prompt: str = ""


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """A peer as its own folder describes it.

    `runtimes` starts with the default; `initial_prompt` is the seed of a fresh session's first
    turn; `wake_policy` is "ephemeral" or ""; `uid` is 32 hexadecimal characters, "" in files
    from before it. `raw_intelligence` is the word on disk ("" for none) and `extra` the keys
    and values we don't read, both written back as they were; `order` is the order of keys on
    disk. Objects inside `interfaces` and `extra` are shared, not copied: don't change them.
    """

    personality: str
    default_runtime: str
    runtimes: tuple[str, ...]
    description: str = ""
    intelligence: Intelligence
    raw_intelligence: str = ""
    initial_prompt: str = ""
    interfaces: dict[str, object] | None = None
    wake_policy: str = ""
    uid: str = ""
    extra: dict[str, object] = msgspec.field(default_factory=dict)
    order: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, raw: object, source: str) -> Self:
        """Read a parsed profile; `source` names the file in errors.

        Raises ProfileError: `not an object`, `missing personality`, `invalid personality`,
        `invalid runtime`, `runtimes is not a list`, `unknown intelligence`, `interfaces is not
        an object`, `invalid uid`. A description, prompt or wake policy that can't be one reads
        as absent and is kept on disk.
        """
        fields = Fields(raw, ProfileError, f"{source}: ")
        personality = fields.personality()
        default_runtime = fields.default_runtime()
        runtimes = fields.runtimes(default_runtime)
        intelligence, raw_intelligence = fields.intelligence(default_runtime)
        wake_policy = fields.left.get("wake_policy")
        if wake_policy == _EPHEMERAL:
            del fields.left["wake_policy"]
        return cls(
            personality=personality,
            default_runtime=default_runtime,
            runtimes=runtimes,
            description=fields.text("description"),
            intelligence=intelligence,
            raw_intelligence=raw_intelligence,
            initial_prompt=fields.text("initial_prompt"),
            interfaces=fields.interfaces(),
            wake_policy=_EPHEMERAL if wake_policy == _EPHEMERAL else "",
            uid=fields.uid(),
            extra=fields.left,
            order=fields.order,
        )

    def to_json(self) -> dict[str, object]:
        """Return the object to write over the one read.

        Both runtime keys are written, in step. An optional key appears when it has a value or
        was there before; a nature nobody stated stays unstated in a file that was read.
        """
        known: dict[str, object] = {
            "personality": self.personality,
            "default_runtime": self.default_runtime,
            "runtime": self.default_runtime,
            "runtimes": list(self.runtimes),
        }
        known |= self._optional("description", self.description)
        if self._states_intelligence():
            known["intelligence"] = stored_word(self.intelligence, self.raw_intelligence)
        known |= self._optional("initial_prompt", self.initial_prompt)
        if self.interfaces is not None:
            known["interfaces"] = self.interfaces
        if self.wake_policy:
            known["wake_policy"] = self.wake_policy
        if self.uid:
            known["uid"] = self.uid
        return put_in_order(self.order, known, self.extra)

    def merged(self, change: ProfileChange) -> Self:
        """Return the profile with a change applied; nothing is ever emptied by it.

        The word on disk stays when the stated nature is the present one. Raises InvalidInput
        for a nature outside the vocabulary.
        """
        default_runtime = change.default_runtime or self.default_runtime
        merged = msgspec.structs.replace(
            self,
            default_runtime=default_runtime,
            runtimes=tuple(dict.fromkeys((default_runtime, *self.runtimes, *change.runtimes))),
            description=change.description.strip() or self.description,
            initial_prompt=change.initial_prompt.strip() or self.initial_prompt,
        )
        return merged.with_intelligence(change.intelligence) if change.intelligence else merged

    def with_intelligence(self, word: str) -> Self:
        """Return the profile with a nature stated on purpose; a word on disk that agrees stays.

        Raises InvalidInput naming the vocabulary.
        """
        nature = stated_intelligence(word)
        keeps = nature is self.intelligence and self.raw_intelligence
        raw = self.raw_intelligence if keeps else word
        return msgspec.structs.replace(self, intelligence=nature, raw_intelligence=raw)

    def _optional(self, key: str, value: str) -> dict[str, object]:
        return {key: value} if value or (key in self.order and key not in self.extra) else {}

    def _states_intelligence(self) -> bool:
        is_new = not self.order
        by_default = self.intelligence is default_intelligence(self.default_runtime)
        return is_new or bool(self.raw_intelligence) or not by_default


def project(profile: Profile, cwd: str, previous: RegistryRecord | None = None) -> RegistryRecord:
    """Return the record the index should hold for a profile that lives in `cwd`.

    It replaces, so narrowed runtimes propagate; of the `previous` record only what a profile
    can't know stays: foreign keys, their order, and the nature's word where it means the same.
    """
    raw = profile.raw_intelligence
    if previous is not None:
        raw = stored_word(profile.intelligence, previous.raw_intelligence or raw)
    return RegistryRecord(
        personality=profile.personality,
        default_runtime=profile.default_runtime,
        runtimes=profile.runtimes,
        description=clamp_description(profile.description),
        intelligence=profile.intelligence,
        raw_intelligence=raw,
        cwd=cwd,
        interfaces=profile.interfaces,
        uid=profile.uid,
        extra=previous.extra if previous else {},
        order=previous.order if previous else (),
    )


def drift(record: RegistryRecord, profile: Profile) -> tuple[str, ...]:
    """Return the fields in which the index differs from the profile; cwd is never compared."""
    wanted = project(profile, record.cwd)
    compared = ("personality", "default_runtime", "runtimes", "description", "intelligence")
    return tuple(name for name in compared if getattr(record, name) != getattr(wanted, name))
