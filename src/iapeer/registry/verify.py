"""`iapeer verify`: is every profile well formed, and does the index agree with it; and the repair.

The local profile is the truth, the index its projection. Checking never writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from iapeer.core.errors import ProfileError, RegistryError, StorageError
from iapeer.core.profile import (
    Issue,
    Profile,
    RegistryRecord,
    drift,
    project,
    validate_profile,
)
from iapeer.registry.index import HealReport, Problem, Registry
from iapeer.registry.profiles import find_profile, read_profile, update_profile
from iapeer.storage.jsonfile import MISSING, read_json
from iapeer.storage.paths import profile_path


class PeerFinding(msgspec.Struct, frozen=True):
    """What is known of one peer; `drift` is None without a profile to compare with."""

    personality: str
    cwd: str
    issues: tuple[Issue, ...] = ()
    drift: tuple[str, ...] | None = ()

    @property
    def errors(self) -> tuple[Issue, ...]:
        """Return the issues that make the profile unfit."""
        return tuple(issue for issue in self.issues if issue.severity == "error")

    @property
    def warnings(self) -> tuple[Issue, ...]:
        """Return the issues that only deserve a look."""
        return tuple(issue for issue in self.issues if issue.severity == "warning")


class VerifyReport(msgspec.Struct, frozen=True):
    """The state of index and profiles; `problems` are records or files that can't be used."""

    findings: tuple[PeerFinding, ...]
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def peers(self) -> int:
        """Return how many peers the index has, records put aside not counted."""
        return len(self.findings)

    @property
    def errors(self) -> int:
        """Return how many errors there are, in profiles and in the index file."""
        return len(self.problems) + sum(len(finding.errors) for finding in self.findings)

    @property
    def drift(self) -> int:
        """Return in how many peers the index differs from the profile."""
        return sum(1 for finding in self.findings if finding.drift)

    @property
    def reconcile(self) -> tuple[PeerFinding, ...]:
        """Return the peers a reindex would change, or could not because the profile is missing."""
        return tuple(f for f in self.findings if f.drift is None or f.drift)

    def to_json(self) -> dict[str, Any]:
        """Return the object of `verify --json`: counts, the reconcile list, and our findings."""
        return {
            "peers": self.peers,
            "errors": self.errors,
            "drift": self.drift,
            "reconcile": [
                {
                    "personality": finding.personality,
                    "cwd": finding.cwd,
                    "drift": None if finding.drift is None else list(finding.drift),
                }
                for finding in self.reconcile
            ],
            "issues": [
                {
                    "personality": finding.personality,
                    "severity": issue.severity,
                    "field": issue.field,
                    "message": issue.message,
                }
                for finding in self.findings
                for issue in finding.issues
            ],
            "problems": [
                {"personality": problem.personality, "message": problem.message}
                for problem in self.problems
            ],
        }


class FixReport(msgspec.Struct, frozen=True):
    """What `fix` did: legacy profiles rewritten, records put aside, peers without a profile.

    `missing` pairs a name with its folder, `failed` a name with why its profile can't be written.
    """

    healed: HealReport
    migrated: tuple[str, ...] = ()
    missing: tuple[tuple[str, str], ...] = ()
    failed: tuple[tuple[str, str], ...] = ()


def verify(registry: Registry) -> VerifyReport:
    """Check all peers; reads only, and never raises for a broken file: that is a finding."""
    try:
        snapshot = registry.snapshot()
    except RegistryError as error:
        return VerifyReport((), (Problem("", str(error)),))
    uids = [record.uid for record in snapshot if record.uid]
    twice = {uid for uid in uids if uids.count(uid) > 1}
    findings = tuple(_inspect(record, twice) for record in snapshot)
    return VerifyReport(findings, snapshot.problems, snapshot.warnings)


def fix(registry: Registry, stamp: str) -> FixReport:
    """Repair what can be repaired without a guess.

    Corrupt records go into a quarantine file named after `stamp` (a date) and come back from
    their profiles where these are sound; conformant profiles in the legacy shape are rewritten;
    then each record is replaced by the projection of its profile. Profiles with errors are not
    touched, and records whose profile is missing or has errors are kept.

    Raises RegistryError, LockBusy, StorageError.
    """
    healed = registry.heal(_projection, stamp)
    migrated, failed = [], []
    for record in registry.snapshot():
        try:
            if _migrate(Path(record.cwd)):
                migrated.append(record.personality)
        except (StorageError, ProfileError) as error:
            failed.append((record.personality, error.message))

    def change(records: dict[str, RegistryRecord]) -> tuple[tuple[str, str], ...]:
        missing = []
        for name, record in sorted(records.items()):
            profile = _sound_profile(Path(record.cwd))
            if profile is None:
                if not profile_path(Path(record.cwd)).exists():
                    missing.append((name, record.cwd))
            elif profile.personality == name or profile.personality not in records:
                del records[name]
                records[profile.personality] = project(profile, record.cwd, record)
        return tuple(missing)

    missing = registry.change(change)
    return FixReport(healed, tuple(migrated), missing, tuple(failed))


def verify_lines(report: VerifyReport) -> list[str]:
    """Return what `verify` prints: errors, warnings and drift by peer, then the summary."""
    return [
        *(f"✗ {problem.personality or 'index'}: {problem.message}" for problem in report.problems),
        *(line for finding in report.findings for line in _finding_lines(finding)),
        f"{report.peers} peers · {report.errors} error(s) · {report.drift} index↔local drift(s)",
    ]


def fix_lines(report: FixReport) -> list[str]:
    """Return what `verify --fix` prints on standard output before it checks again."""
    lines = [f"migrated runtime→default_runtime {name}" for name in report.migrated]
    if report.healed.quarantine is not None:
        lines.append(f"quarantined corrupt records: {report.healed.quarantine}")
    lines += [f"rebuilt from its local profile: {name}" for name in report.healed.rebuilt]
    return [*lines, "self-healed index from local profiles"]


def fix_warnings(report: FixReport) -> list[str]:
    """Return what `verify --fix` prints on standard error: what it could not repair."""
    return [
        *(f"{name or 'a nameless record'}: quarantined" for name in report.healed.lost),
        *(f"{name}: local profile missing in {cwd}, record kept" for name, cwd in report.missing),
        *(f"{name}: profile not migrated: {message}" for name, message in report.failed),
    ]


def _inspect(record: RegistryRecord, shared_uids: set[str]) -> PeerFinding:
    cwd = Path(record.cwd)
    name = record.personality
    try:
        issues = validate_profile(read_json(profile_path(cwd)), cwd.name)
    except StorageError as error:
        code = "missing" if error.code == MISSING else "root"
        issue = Issue("error", code, error.message)
        return PeerFinding(name, record.cwd, (issue,), None)
    if record.uid in shared_uids:
        issues.append(Issue("error", "uid", "another peer has the same uid: a copied folder"))
    try:
        profile = read_profile(cwd)
    except ProfileError as error:
        if not any(issue.severity == "error" for issue in issues):
            issues.append(Issue("error", "root", error.message))
        return PeerFinding(name, record.cwd, tuple(issues), None)
    return PeerFinding(name, record.cwd, tuple(issues), drift(record, profile))


def _sound_profile(cwd: Path) -> Profile | None:
    """Return the profile of a folder if there is one without errors."""
    try:
        issues = validate_profile(read_json(profile_path(cwd)), cwd.name)
        if any(issue.severity == "error" for issue in issues):
            return None
        return find_profile(cwd)
    except (StorageError, ProfileError):
        return None


def _projection(folder: str) -> RegistryRecord | None:
    profile = _sound_profile(Path(folder))
    return None if profile is None else project(profile, folder)


def _migrate(cwd: Path) -> bool:
    """Rewrite a sound profile that has a legacy runtime key or no uid; tell of the former."""
    profile = _sound_profile(cwd)
    if profile is None:
        return False
    issues = validate_profile(read_json(profile_path(cwd)), cwd.name)
    is_legacy = any(issue.field == "default_runtime" for issue in issues)
    if is_legacy or not profile.uid:
        update_profile(cwd, lambda present: present)
    return is_legacy


def _finding_lines(finding: PeerFinding) -> Iterator[str]:
    name = finding.personality
    for mark, issues in (("✗", finding.errors), ("⚠", finding.warnings)):
        if issues:
            text = ", ".join(f"{issue.field} ({issue.message})" for issue in issues)
            yield f"{mark} {name}: {text}"
    if finding.drift:
        yield f"↯ {name}: index↔local drift on {', '.join(finding.drift)}"
