"""What the index file says, as an immutable value: the reading half of the registry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from iapeer.core.errors import PeerNotFound, RegistryError, StorageError
from iapeer.core.profile import RegistryRecord
from iapeer.storage.jsonfile import parse_json
from iapeer.storage.paths import REGISTRY_NAME

VERSION = 2
"""The schema version we write."""
FIX_HINT = "run: iapeer verify --fix"

_CORRUPTED = "peers-profiles.json corrupted, restore from backup or delete to start fresh"
_RECORD = "peers-profiles.json corrupted:"


@dataclass(frozen=True)
class Problem:
    """Something in the file that could not be used; `raw` is a record that was put aside."""

    personality: str
    message: str
    raw: object = None


@dataclass(frozen=True)
class RegistrySnapshot:
    """The index at one moment; records are sorted by personality."""

    records: tuple[RegistryRecord, ...] = ()
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()
    version: int = VERSION
    extra: Mapping[str, object] = field(default_factory=dict)
    by_name: Mapping[str, RegistryRecord] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = MappingProxyType({record.personality: record for record in self.records})
        object.__setattr__(self, "by_name", names)

    def __iter__(self) -> Iterator[RegistryRecord]:
        return iter(self.records)

    def get(self, personality: str) -> RegistryRecord | None:
        """Return the record of that name, None when there is none."""
        return self.by_name.get(personality)

    def require(self, personality: str) -> RegistryRecord:
        """Return the record of that name.

        Raises PeerNotFound, which tells of a record that was put aside.
        """
        record = self.by_name.get(personality)
        if record is not None:
            return record
        for problem in self.problems:
            if problem.personality == personality:
                raise PeerNotFound(
                    f"peer {personality!r} is not registered: {problem.message}", hint=FIX_HINT
                )
        raise PeerNotFound(
            f"peer {personality!r} is not registered", hint="iapeer list shows who is"
        )


def decode_registry(data: bytes) -> RegistrySnapshot:
    """Read the file's content; a bad record becomes a problem, the first of two namesakes counts.

    Raises RegistryError when it is no registry at all.
    """
    try:
        raw = parse_json(data, Path(REGISTRY_NAME))
    except StorageError as error:
        raise RegistryError(_CORRUPTED, hint=f"{FIX_HINT} ({error.message})") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("peers"), list):
        raise RegistryError(_CORRUPTED, hint=FIX_HINT)
    records: dict[str, RegistryRecord] = {}
    problems = []
    for item in raw["peers"]:
        try:
            record = RegistryRecord.from_json(item)
        except RegistryError as error:
            problems.append(Problem(_name_of(item), error.message, item))
            continue
        name = record.personality
        if name in records:
            problems.append(Problem(name, f"{_RECORD} duplicate personality {name!r}", item))
        else:
            records[name] = record
    version = raw.get("version")
    version = version if isinstance(version, int) and not isinstance(version, bool) else 0
    warnings: tuple[str, ...] = ()
    if version > VERSION:
        warnings = (f"peers-profiles.json has version {version}, newer than {VERSION}: read only",)
    return RegistrySnapshot(
        records=tuple(records[name] for name in sorted(records)),
        problems=tuple(problems),
        warnings=warnings,
        version=version,
        extra={key: value for key, value in raw.items() if key not in {"version", "peers"}},
    )


def _name_of(item: object) -> str:
    name = item.get("personality") if isinstance(item, dict) else None
    return name if isinstance(name, str) else ""
