"""What the daemon and those who stand in for it open in the same way."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from iapeer.core import env
from iapeer.core.errors import IapeerError
from iapeer.registry.index import Registry
from iapeer.storage.atomic import storage_error
from iapeer.storage.paths import Paths


def open_registry(paths: Paths, environ: Mapping[str, str]) -> Registry:
    """Return the registry of a root, as the environment allows to use it."""
    return Registry(paths, sandbox=environ.get(env.TEST_SANDBOX) == "1")


def check_owner(root: Path) -> None:
    """Refuse a root of another account before anything in it is opened, also to uid 0.

    What root writes there its owner could not read. One that does not exist is nobody's.

    Raises IapeerError (`foreign_account`), StorageError.
    """
    try:
        owner = root.stat().st_uid
    except FileNotFoundError:
        return
    except OSError as error:
        raise storage_error(error, root, "open") from error
    if owner != os.geteuid():
        raise IapeerError(
            f"{root} belongs to uid {owner}, this is uid {os.geteuid()}",
            hint=f"run this as its owner, or use a root of your own: {env.ROOT}",
            code="foreign_account",
        )
