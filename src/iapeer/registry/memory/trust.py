"""Folders that Codex trusts: it reads a project's configuration, and so our lever, only there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from iapeer.core import env

from .merge import Keys, Merge, Merged, Put, merge, read_toml

_TRUSTED = "trusted"


class Trust(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a wish to trust a folder; `refused` is what the user had said of it."""

    config: Path
    folder: str
    merged: Merged
    refused: str = ""


def codex_config(environ: Mapping[str, str]) -> Path:
    """Return the user's configuration of Codex: `$CODEX_HOME/config.toml`, else in `~/.codex`."""
    home = environ.get(env.CODEX_HOME, "").strip()
    folder = Path(home) if home else Path(environ.get(env.HOME) or Path.home()) / ".codex"
    return folder / "config.toml"


def trust_folder(config: Path, cwd: Path) -> Trust:
    """Have Codex trust a folder, by its real path; what the user said of it already stays.

    Raises StorageError, LockBusy.
    """
    folder = os.path.realpath(cwd)
    said = _said(read_toml(config), folder)
    if said:
        refused = "" if said == _TRUSTED else said
        return Trust(config=config, folder=folder, merged=Merged(), refused=refused)
    put = Put(("projects", folder, "trust_level"), _TRUSTED)
    merged = merge(Merge(path=config, put=(put,), is_shared=True))
    return Trust(config=config, folder=folder, merged=merged)


def forget_sections(config: Path, sections: Iterable[Keys]) -> bool:
    """Take tables out of a configuration file; tell whether any of them was there.

    The file goes as well when we had made it and nothing else is in it.

    Raises StorageError, LockBusy.
    """
    return merge(Merge(path=config, drop=tuple(sections), is_shared=True)).changed


def _said(document: Mapping[str, object], folder: str) -> str:
    """Return the trust level of a folder, empty when there is none."""
    projects = document.get("projects")
    section = projects.get(folder) if isinstance(projects, dict) else None
    level = section.get("trust_level") if isinstance(section, dict) else None
    return level if isinstance(level, str) else ""
