"""Parses and checks TOML manifests: text becomes a `RuntimeSpec`, or an error that names the key.

The smallest manifest makes any interactive program a peer:

    id = "mytool"
    [launch]
    argv = ["mytool", "--interactive"]

`spec.py` says the default of everything else, `manifests/README.md` is a commented example of
every key. Nothing here runs a program, reads the environment or knows tmux.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from iapeer.core.errors import ManifestError

from .allowed import allowed_at
from .checks import check
from .spec import Door, Kind, RuntimeSpec, lookup
from .templates import PLACEHOLDERS, expand

__all__ = [
    "PLACEHOLDERS",
    "RuntimeSpec",
    "expand",
    "load_manifest",
    "lookup",
    "parse_manifest",
]


def parse_manifest(text: str, source: str) -> RuntimeSpec:
    """Return the runtime a TOML text describes; `source` names it in errors.

    Raises ManifestError naming `source`, the key and what is allowed there.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ManifestError(f"{source}: not valid TOML: {error}") from None
    _flatten_matches(raw)
    try:
        spec = msgspec.convert(raw, RuntimeSpec)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `")
        key = path.rstrip("`").removeprefix("$").removeprefix(".")
        where = f"{source}: {key}" if key else source
        raise ManifestError(
            f"{where}: {what[:1].lower()}{what[1:]}", hint=allowed_at(RuntimeSpec, key)
        ) from None
    spec = _filled(spec)
    try:
        check(spec)
    except ManifestError as error:
        raise ManifestError(f"{source}: {error.message}", hint=error.hint) from None
    return spec


def load_manifest(path: Path) -> RuntimeSpec:
    """Read and parse one manifest file (UTF-8).

    Raises ManifestError, also for a file that can't be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: can't be read: {error}") from None
    return parse_manifest(text, str(path))


def _flatten_matches(raw: dict[str, Any]) -> None:
    """Let `match = { message.role = "user" }` mean the same as the quoted dotted key."""
    evidence = raw.get("evidence")
    records = evidence.get("records") if isinstance(evidence, dict) else None
    for record in records if isinstance(records, list) else ():
        if isinstance(record, dict) and isinstance(record.get("match"), dict):
            record["match"] = dict(_dotted(record["match"]))


def _dotted(table: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in table.items():
        if isinstance(value, dict):
            pairs.extend(_dotted(value, f"{prefix}{key}."))
        else:
            pairs.append((f"{prefix}{key}", value))
    return pairs


_DEFAULT_DOORS: Mapping[Kind, tuple[Door, ...]] = {
    "tui": ("paste",),
    "router": ("pane",),
    "service": ("inbox",),
}


def _filled(spec: RuntimeSpec) -> RuntimeSpec:
    """Put in the defaults that depend on other keys."""
    return msgspec.structs.replace(
        spec,
        title=spec.title or spec.id,
        intelligence=spec.intelligence or ("artificial" if spec.kind == "tui" else "absent"),
        doors=spec.doors or _DEFAULT_DOORS[spec.kind],
        evidence=msgspec.structs.replace(
            spec.evidence,
            prompt_hook=spec.evidence.prompt_hook or bool(spec.evidence.hooks),
        ),
    )
