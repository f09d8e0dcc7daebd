"""One system prompt of one peer: composed from its layers, written at each bring-up."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path

import msgspec

from iapeer.core.identity import Identity
from iapeer.core.profile import RegistryRecord
from iapeer.storage.atomic import ensure_private_dir, remove_file, write_text
from iapeer.storage.paths import Paths

from .explanation import explanation
from .layers import Facts, display_path, file_section, front_matter, joined, roster
from .sources import HostFacts, LayerFile, LayerFiles, Tell, has_doctrine


class PromptContext(msgspec.Struct, frozen=True, kw_only=True):
    """What a prompt depends on besides the layer files.

    `cwd` is the peer's folder, `home` the one shown as `~`, `records` the whole registry,
    `today` the LOCAL date, `one_task` says that the session is for one task only.
    """

    cwd: Path
    home: Path
    records: Sequence[RegistryRecord]
    host: HostFacts
    today: date
    one_task: bool = False


def compose(personality: str, paths: Paths, context: PromptContext, tell: Tell) -> str | None:
    """Return the prompt, None for a peer without `.iapeer/IAPEER.md` (a bare session).

    From general to particular: identity and host, what iapeer explains, doctrine of host and
    peer, known peers, domains, fragments. The fragments are written by programs and change most
    often: they come last, so that what stands before them stays in the model's prompt cache.
    """
    if not has_doctrine(context.cwd, tell):
        return None
    files = LayerFiles(paths.root, context.cwd, tell)

    def sections(found: Iterable[LayerFile]) -> list[str]:
        return [_section(file, context.home) for file in found]

    return joined(
        (
            front_matter(_facts(personality, context)),
            explanation(one_task=context.one_task),
            *sections(files.doctrine()),
            roster(context.records),
            *sections(files.domains()),
            *sections(files.fragments()),
        )
    )


def write_system_prompt(
    paths: Paths, identity: Identity, context: PromptContext, tell: Tell
) -> Path | None:
    """Write the prompt of this bring-up (0600, atomic) and return its path, None if bare.

    A bare session leaves no prompt of an earlier one behind. Blocks for file I/O.

    Raises StorageError.
    """
    path = system_prompt_path(paths, identity)
    text = compose(identity.personality, paths, context, tell)
    if text is None:
        remove_file(path)
        return None
    ensure_private_dir(path.parent)
    write_text(path, text)
    return path


def system_prompt_path(paths: Paths, identity: Identity) -> Path:
    """Return where the prompt of an identity is written; it goes when the peer is removed."""
    return paths.lifecycle_state / f"{identity.address}.system-prompt.md"


def _facts(personality: str, context: PromptContext) -> Facts:
    record = next((one for one in context.records if one.personality == personality), None)
    return Facts(
        personality=personality,
        description=record.description if record is not None else "",
        peer_cwd=record.cwd if record is not None else str(context.cwd),
        platform=context.host.platform,
        os_version=context.host.os_version,
        user=context.host.user,
        hostname=context.host.hostname,
        today=context.today.isoformat(),
    )


def _section(file: LayerFile, home: Path) -> str:
    path = os.path.abspath(file.path)  # noqa: PTH100 - resolve() follows links
    return file_section(display_path(path, str(home)), file.text)
