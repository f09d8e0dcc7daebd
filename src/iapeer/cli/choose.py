"""Which runtime a new peer gets when nobody says so."""

from __future__ import annotations

import shutil
from pathlib import Path

from iapeer.core.errors import InvalidInput, RuntimeUnknown
from iapeer.registry.profiles import discover_runtimes
from iapeer.runtimes.catalog import Catalog
from iapeer.runtimes.manifest import RuntimeSpec

DEMO = "demo"
"""The bundled runtime: always installed, and never what somebody means who names none."""

_FIRST = "claude"
"""The runtime that wins where several are installed."""


def choose(catalog: Catalog, cwd: Path, asked: str | None) -> RuntimeSpec:
    """Return the asked runtime, else the one the folder shows signs of, else the one installed.

    Raises RuntimeUnknown for one that has no manifest or whose program is missing and when none
    is installed, InvalidInput when the choice is not clear.
    """
    if asked is not None:
        spec = catalog.get(asked)
        if not is_installed(spec):
            raise RuntimeUnknown(
                f"runtime {asked!r} is not installed: no program {spec.launch.argv[0]!r} on PATH",
                hint="install it, or choose another runtime",
            )
        return spec
    for runtime in discover_runtimes(cwd):
        if runtime in catalog.ids():
            return catalog.get(runtime)
    installed = [spec for spec in _agentic(catalog) if is_installed(spec)]
    if not installed:
        raise RuntimeUnknown(
            "no agentic runtime installed",
            hint=f"install one, or choose with --runtime: {', '.join(catalog.ids())}"
            f" ({DEMO} needs nothing)",
        )
    if len(installed) == 1:
        return installed[0]
    for spec in installed:
        if spec.id == _FIRST:
            return spec
    raise InvalidInput(
        f"several runtimes are installed: {', '.join(spec.id for spec in installed)}",
        hint="choose one with --runtime",
    )


def is_installed(spec: RuntimeSpec) -> bool:
    """Tell whether the runtime's program is there; one that is not launched always is."""
    if spec.kind != "tui" or not spec.launch.argv:
        return True
    program = spec.launch.argv[0]
    return "{" in program or shutil.which(program) is not None


def _agentic(catalog: Catalog) -> list[RuntimeSpec]:
    specs = [catalog.get(runtime) for runtime in catalog.ids() if runtime != DEMO]
    return [spec for spec in specs if spec.kind == "tui" and spec.intelligence == "artificial"]
