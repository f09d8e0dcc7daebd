"""Who is calling: by address on a request, by environment and folder in a process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from iapeer.core import env
from iapeer.core.errors import CallerError, ProfileError
from iapeer.core.identity import Identity, parse_identity
from iapeer.core.names import is_valid_name, is_valid_runtime, normalize_name
from iapeer.core.profile import RegistryRecord
from iapeer.registry.index import RegistrySnapshot, same_folder
from iapeer.registry.profiles import find_profile

_HINT = "send from a peer's session or folder, or say who you are: --from <runtime>-<peer>"


class Caller(msgspec.Struct, frozen=True):
    """A caller the registry knows; everything about it comes from there."""

    identity: Identity
    record: RegistryRecord

    @property
    def address(self) -> str:
        """Return `<runtime>-<personality>`."""
        return self.identity.address


def resolve_caller(address: str | None, snapshot: RegistrySnapshot) -> Caller:
    """Return the caller a request names; reads neither this process's folder nor environment.

    Raises CallerError with the contract's words: `missing or malformed x-iapeer-identity
    header`, `invalid caller personality`, `unknown caller ... not registered`, `is not declared
    for caller`.
    """
    identity = parse_identity(address) if address else None
    if identity is None:
        _refuse_personality(address or "")
        raise CallerError(
            "missing or malformed x-iapeer-identity header", hint="expected <runtime>-<peer>"
        )
    record = snapshot.get(identity.personality)
    if record is None:
        raise CallerError(
            f"unknown caller {address!r}: peer {identity.personality!r} is not registered",
            hint="iapeer list shows who is",
        )
    if identity.runtime not in record.runtimes:
        raise CallerError(
            f"runtime {identity.runtime!r} is not declared for caller {identity.personality!r}",
            hint=f"declared: {', '.join(record.runtimes)}",
        )
    return Caller(identity, record)


def caller_for_process(
    environ: Mapping[str, str],
    cwd: Path,
    snapshot: RegistrySnapshot,
    explicit_from: str | None = None,
) -> Caller:
    """Return who this process speaks for: `--from`, else PEER_IDENTITY, else the folder's peer.

    PEER_IDENTITY counts when the registry knows it, wherever the process has gone (`cd` in a
    session is normal); one it doesn't know is passed over. The folder is `cwd` or the nearest
    parent with a profile; its peer speaks on its default runtime, and only if the index has it
    there: a copied folder speaks for nobody. PEER_PERSONALITY must not name another peer.

    Raises CallerError: `invalid --from identity`, `unknown caller`, or that nobody was found.
    """
    if explicit_from is not None:
        if parse_identity(explicit_from) is None:
            raise CallerError(
                f"invalid --from identity {explicit_from!r}", hint="expected <runtime>-<peer>"
            )
        return resolve_caller(explicit_from, snapshot)
    address = environ.get(env.PEER_IDENTITY, "").strip()
    if address:
        try:
            return resolve_caller(address, snapshot)
        except CallerError as error:
            refused = f"; {env.PEER_IDENTITY}={address!r}: {error.message}"
    else:
        refused = ""
    caller = _caller_of_folder(environ, cwd, snapshot)
    if caller is None:
        raise CallerError(f"no peer lives in {cwd} or above{refused}", hint=_HINT)
    return caller


def _caller_of_folder(
    environ: Mapping[str, str], cwd: Path, snapshot: RegistrySnapshot
) -> Caller | None:
    for folder in (cwd, *cwd.parents):
        try:
            profile = find_profile(folder)
        except ProfileError as error:
            raise CallerError(error.message, hint=error.hint or _HINT) from error
        if profile is None:
            continue
        stated = environ.get(env.PEER_PERSONALITY, "").strip()
        if stated and normalize_name(stated) != profile.personality:
            raise CallerError(
                f"{env.PEER_PERSONALITY}={stated!r} is not the peer of {folder} "
                f"({profile.personality!r})",
                hint=f"unset {env.PEER_PERSONALITY}, or use --from",
            )
        record = snapshot.get(profile.personality)
        if record is None or not same_folder(record.cwd, str(folder)):
            raise CallerError(
                f"unknown caller {profile.personality!r}: the peer of {folder} is not registered",
                hint=f"register it: iapeer init {folder}",
            )
        return Caller(Identity(record.default_runtime, record.personality), record)
    return None


def _refuse_personality(address: str) -> None:
    """Tell an address with a bad name from one that is none at all."""
    runtime, _, personality = address.partition("-")
    if is_valid_runtime(runtime) and personality and not is_valid_name(personality):
        raise CallerError(
            f"invalid caller personality {personality!r}", hint="expected <runtime>-<peer>"
        )
