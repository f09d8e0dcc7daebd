"""One peer as the host index knows it."""

from __future__ import annotations

from typing import Self

import msgspec

from iapeer.core.errors import RegistryError
from iapeer.core.identity import Intelligence, stated_intelligence, stored_word
from iapeer.core.profile_fields import Fields, clamp_description, put_in_order


class RegistryRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One peer of the index; a projection of its profile plus where it lives.

    `runtimes` starts with the default; `description` is cut to 450 code points; `cwd` is an
    absolute path; `raw_intelligence` is the word on disk ("" for none) and `extra` the keys we
    don't know, both written back as they were; `order` is the order of keys on disk. Objects
    inside `interfaces` and `extra` are shared, not copied: don't change them.
    """

    personality: str
    default_runtime: str
    runtimes: tuple[str, ...]
    description: str = ""
    intelligence: Intelligence
    raw_intelligence: str = ""
    cwd: str
    interfaces: dict[str, object] | None = None
    uid: str = ""
    extra: dict[str, object] = msgspec.field(default_factory=dict)
    order: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, raw: object, source: str = "peers-profiles.json") -> Self:
        """Read one record. Raises RegistryError `<source> corrupted: ...` naming the peer."""
        name = raw.get("personality") if isinstance(raw, dict) else None
        named = f"peer {name!r}: " if isinstance(name, str) and name else "peer: "
        fields = Fields(raw, RegistryError, f"{source} corrupted: {named}")
        personality = fields.personality()
        default_runtime = fields.default_runtime()
        runtimes = fields.runtimes(default_runtime)
        intelligence, raw_intelligence = fields.intelligence(default_runtime)
        cwd = fields.left.pop("cwd", None)
        if not isinstance(cwd, str) or not cwd.strip():
            raise fields.fault("blank cwd")
        return cls(
            personality=personality,
            default_runtime=default_runtime,
            runtimes=runtimes,
            description=clamp_description(fields.text("description")),
            intelligence=intelligence,
            raw_intelligence=raw_intelligence,
            cwd=cwd,
            interfaces=fields.interfaces(),
            uid=fields.uid(),
            extra=fields.left,
            order=fields.order,
        )

    def to_json(self) -> dict[str, object]:
        """Return the object to write: every contract key, `runtime` in step with the default."""
        known: dict[str, object] = {
            "personality": self.personality,
            "default_runtime": self.default_runtime,
            "runtime": self.default_runtime,
            "runtimes": list(self.runtimes),
            "description": clamp_description(self.description),
            "intelligence": stored_word(self.intelligence, self.raw_intelligence),
            "cwd": self.cwd,
        }
        if self.interfaces is not None:
            known["interfaces"] = self.interfaces
        if self.uid:
            known["uid"] = self.uid
        return put_in_order(self.order, known, self.extra)

    def public_view(self) -> dict[str, object]:
        """Return the five keys other peers may see; never cwd, interfaces or uid."""
        return {
            "personality": self.personality,
            "runtime": self.default_runtime,
            "runtimes": list(self.runtimes),
            "description": self.description,
            "intelligence": self.intelligence.value,
        }

    def with_intelligence(self, word: str) -> Self:
        """Return the record with a nature stated on purpose; the word on disk stays if it agrees.

        Raises InvalidInput naming the vocabulary.
        """
        nature = stated_intelligence(word)
        raw = self.raw_intelligence if nature is self.intelligence else word
        return msgspec.structs.replace(self, intelligence=nature, raw_intelligence=raw)
