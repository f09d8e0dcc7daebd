"""The files a runtime finds when it starts: from its manifest, never outside our own folders."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iapeer.core.errors import LaunchFailed
from iapeer.runtimes.spec import File
from iapeer.runtimes.templates import expand_one
from iapeer.storage.atomic import ensure_private_dir, write_bytes

MERGE_MAX_CHARS = 16 << 20
"""A configuration file longer than this is nothing we merge into: cut, it can't be read."""


def write_files(files: tuple[File, ...], values: Mapping[str, str], *, isolated: bool) -> None:
    """Write what applies, each 0600 and at once.

    Raises LaunchFailed (`config`) for a file that should be merged into and can't be read, and
    StorageError.
    """
    for file in files:
        if file.when == "isolated" and not isolated:
            continue
        path = Path(expand_one(file.path, values) or "")
        content = fill(file.content, values)
        if file.merge:
            content = merged(_read(path, file.format), content)
        ensure_private_dir(path.parent)
        write_bytes(path, _render(content, file.format))


def fill(content: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    """Expand every string of a table, keys too; what a false condition leaves out is left out."""
    filled = {}
    for name, value in content.items():
        key, inner = expand_one(name, values), _fill_value(value, values)
        if key is not None and inner is not None:
            filled[key] = inner
    return filled


def _fill_value(value: Any, values: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return expand_one(value, values)
    if isinstance(value, Mapping):
        return fill(value, values)
    if isinstance(value, list):
        found = (_fill_value(item, values) for item in value)
        return [item for item in found if item is not None]
    return value


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return both tables as one; where they disagree `above` wins, tables are joined."""
    result = dict(below)
    for name, value in above.items():
        old = result.get(name)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[name] = merged(old or {}, value) if both else value
    return result


def _read(path: Path, form: str) -> Mapping[str, Any]:
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MERGE_MAX_CHARS)
        found: object = json.loads(text) if form == "json" else tomllib.loads(text)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise LaunchFailed(
            f"{path} can't be merged into: {error}", hint="mend or remove it", code="config"
        ) from None
    if not isinstance(found, Mapping):
        raise LaunchFailed(
            f"{path} holds no table at its top", hint="mend or remove it", code="config"
        )
    return found


def _render(content: Mapping[str, Any], form: str) -> bytes:
    if form == "toml":
        # Loaded only here: 26 ms that no other start needs.
        import tomlkit  # noqa: PLC0415

        return tomlkit.dumps(content).encode()
    return (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode()
