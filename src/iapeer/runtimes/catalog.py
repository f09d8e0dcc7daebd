"""All runtimes this host knows: those shipped with the package and the user's own, which win."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from iapeer.core.errors import ManifestError, RuntimeUnknown

from .manifest import RuntimeSpec, load_manifest

_Stamp = tuple[tuple[str, str, int, int], ...]
"""Runtime, path, time of change (ns) and size of each manifest of the user."""

SHIPPED = Path(__file__).parent / "manifests"
"""Manifests that come with the package."""


class Problem(msgspec.Struct, frozen=True):
    """A runtime that is not available, and why; the others are."""

    runtime: str
    path: str
    message: str


class Catalog:
    """Runtimes by id; a bad manifest of the user takes away only its own runtime.

    The user's folder is looked at again whenever a manifest in it has come, gone or changed, so
    that a daemon needs no restart for a new runtime.
    """

    def __init__(self, runtimes_dir: Path) -> None:
        self._folder = runtimes_dir
        self._stamp: _Stamp | None = None
        self._found: dict[str, RuntimeSpec] = {}
        self._problems: tuple[Problem, ...] = ()

    @classmethod
    def load(cls, runtimes_dir: Path) -> Catalog:
        """Read the shipped manifests and `<runtimes_dir>/<id>.toml` or `<id>/runtime.toml`.

        A folder without `runtime.toml` and a missing `runtimes_dir` are nothing special. A bad
        shipped manifest is a defect of the package and raises ManifestError.
        """
        catalog = cls(runtimes_dir)
        catalog._refresh()
        return catalog

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Runtimes that are not available, and why."""
        self._refresh()
        return self._problems

    @property
    def _specs(self) -> dict[str, RuntimeSpec]:
        self._refresh()
        return self._found

    def _refresh(self) -> None:
        stamp = _look(self._folder)
        if stamp == self._stamp:
            return
        specs = {path.stem: _named(path.stem, path) for path in sorted(SHIPPED.glob("*.toml"))}
        problems = []
        for runtime, paths in _by_runtime(stamp).items():
            specs.pop(runtime, None)
            try:
                specs[runtime] = _only(runtime, paths)
            except ManifestError as error:
                problems.append(Problem(runtime, str(paths[0]), str(error)))
        self._found, self._problems, self._stamp = specs, tuple(problems), stamp

    def ids(self) -> tuple[str, ...]:
        """Return the ids of all available runtimes, sorted."""
        return tuple(sorted(self._specs))

    def get(self, runtime: str) -> RuntimeSpec:
        """Return one runtime.

        Raises RuntimeUnknown naming the known ids, or what is wrong with that runtime's manifest.
        """
        spec = self._specs.get(runtime)
        if spec is not None:
            return spec
        known = f"known runtimes: {', '.join(self.ids())}"
        for problem in self.problems:
            if problem.runtime == runtime:
                raise RuntimeUnknown(
                    f"runtime {runtime!r} is not available: {problem.message}", hint=known
                )
        raise RuntimeUnknown(f"unknown runtime {runtime!r}", hint=known)


def _look(folder: Path) -> _Stamp:
    """Find the user's manifests; each accepted message asks."""
    found = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            runtime = entry.name.removesuffix(".toml")
            is_file = runtime != entry.name
            path = entry.path if is_file else f"{entry.path}/runtime.toml"
            try:
                info = entry.stat() if is_file else Path(path).stat()
            except OSError:
                # A link to nowhere is a manifest that can't be read.
                if is_file:
                    found.append((runtime, path, 0, 0))
            else:
                found.append((runtime, path, info.st_mtime_ns, info.st_size))
    return tuple(sorted(found))


def _by_runtime(stamp: _Stamp) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for runtime, path, _changed, _size in stamp:
        found.setdefault(runtime, []).append(Path(path))
    return found


def _only(runtime: str, paths: list[Path]) -> RuntimeSpec:
    if len(paths) > 1:
        raise ManifestError(
            f"{paths[0]} and {paths[1]} both describe {runtime!r}", hint="remove one of them"
        )
    return _named(runtime, paths[0])


def _named(runtime: str, path: Path) -> RuntimeSpec:
    spec = load_manifest(path)
    if spec.id != runtime:
        raise ManifestError(
            f"{path}: id: {spec.id!r} does not match the file's name", hint=f"use id = {runtime!r}"
        )
    return spec
