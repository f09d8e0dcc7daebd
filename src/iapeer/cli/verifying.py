"""`iapeer verify`: are the profiles sound, and does the index agree with them."""

from __future__ import annotations

from datetime import datetime

from iapeer.registry import verify as checks
from iapeer.registry.index import Registry
from iapeer.storage.paths import Paths

from . import output
from .context import is_sandbox, load_settings
from .grammar import Call


def verify(call: Call) -> int:
    """Check all peers and, with `--fix`, repair first; returns 1 when something is left to mend."""
    registry = Registry(Paths(load_settings().root), sandbox=is_sandbox())
    as_json = call.has("json")
    if call.has("fix"):
        fixed = checks.fix(registry, f"{datetime.now().astimezone():%Y%m%dT%H%M%S}")
        for line in checks.fix_lines(fixed):
            # JSON on stdout stays JSON; what was done is still told.
            (output.warn if as_json else output.say)(line)
        for line in checks.fix_warnings(fixed):
            output.warn(line)
    report = checks.verify(registry)
    for warning in report.warnings:
        output.warn(warning)
    if as_json:
        output.emit(report.to_json())
    else:
        for line in checks.verify_lines(report):
            output.say(line)
    return 1 if report.errors or report.drift else 0
