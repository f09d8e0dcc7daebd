"""What the daemon and those who stand in for it open in the same way."""

from __future__ import annotations

from collections.abc import Mapping

from iapeer.core import env
from iapeer.registry.index import Registry
from iapeer.storage.paths import Paths


def open_registry(paths: Paths, environ: Mapping[str, str]) -> Registry:
    """Return the registry of a root, as the environment allows to use it."""
    return Registry(paths, sandbox=environ.get(env.TEST_SANDBOX) == "1")
