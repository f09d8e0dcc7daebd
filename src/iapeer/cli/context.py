"""What an ordinary verb works with: the settings of this host, and the peers it is about."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iapeer.core import env
from iapeer.core.errors import ConfigError, UsageError
from iapeer.core.settings import Settings, make_settings
from iapeer.storage.paths import Paths

TYPE_CHECKING = False  # the registry is for verbs that read it; a type checker sees true here
if TYPE_CHECKING:
    from iapeer.core.profile import RegistryRecord

    from .grammar import Call


def load_settings(flags: Mapping[str, Any] | None = None) -> Settings:
    """Merge defaults, `<root>/iapeer.toml`, the environment and `flags`.

    Raises ConfigError naming the file or the variable.
    """
    base = make_settings(os.environ, flags=flags)
    path = Paths(base.root).settings_file
    values = _read(path)
    return make_settings(os.environ, values, file_name=str(path), flags=flags) if values else base


def named_records(call: Call) -> list[RegistryRecord]:
    """Return the peers that `--peer` or `--all` names.

    Raises UsageError unless exactly one of the two is there, PeerNotFound, RegistryError.
    """
    from iapeer.registry.index import Registry

    if call.has("peer") == call.has("all"):
        raise UsageError("needs either --peer or --all")
    snapshot = Registry(Paths(load_settings().root), sandbox=is_sandbox()).snapshot()
    name = call.get("peer")
    return list(snapshot) if name is None else [snapshot.require(name)]


def is_sandbox() -> bool:
    """Tell whether the environment forbids writing to the real root."""
    return os.environ.get(env.TEST_SANDBOX) == "1"


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        hint = f"check its owner and mode, or use another root: {env.ROOT}"
        raise ConfigError(f"{path} can't be read: {error}", hint=hint) from None
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
