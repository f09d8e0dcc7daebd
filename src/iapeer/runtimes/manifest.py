"""Parses and checks TOML manifests: text becomes a `RuntimeSpec`, or an error that names the key.

The smallest manifest makes any interactive program a peer:

    id = "mytool"
    [launch]
    argv = ["mytool", "--interactive"]

`spec.py` says the default of everything else, `manifests/README.md` is a commented example of
every key. Nothing here runs a program, reads the environment or knows tmux.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from iapeer.core.errors import ManifestError

from .allowed import allowed_at
from .spec import Door, Evidence, Kind, RuntimeSpec, Screen, lookup
from .templates import PLACEHOLDERS, expand, placeholders

__all__ = [
    "PLACEHOLDERS",
    "RuntimeSpec",
    "expand",
    "load_manifest",
    "lookup",
    "parse_manifest",
]


def parse_manifest(text: str, source: str) -> RuntimeSpec:
    """Return the runtime a TOML text describes; `source` names it in errors.

    Raises ManifestError naming `source`, the key and what is allowed there.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ManifestError(f"{source}: not valid TOML: {error}") from None
    _flatten_matches(raw)
    try:
        spec = msgspec.convert(raw, RuntimeSpec)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `")
        key = path.rstrip("`").removeprefix("$").removeprefix(".")
        where = f"{source}: {key}" if key else source
        raise ManifestError(
            f"{where}: {what[:1].lower()}{what[1:]}", hint=allowed_at(RuntimeSpec, key)
        ) from None
    spec = _filled(spec)
    try:
        _check(spec)
    except ManifestError as error:
        raise ManifestError(f"{source}: {error.message}", hint=error.hint) from None
    return spec


def load_manifest(path: Path) -> RuntimeSpec:
    """Read and parse one manifest file (UTF-8).

    Raises ManifestError, also for a file that can't be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: can't be read: {error}") from None
    return parse_manifest(text, str(path))


def _flatten_matches(raw: dict[str, Any]) -> None:
    """Let `match = { message.role = "user" }` mean the same as the quoted dotted key."""
    evidence = raw.get("evidence")
    records = evidence.get("records") if isinstance(evidence, dict) else None
    for record in records if isinstance(records, list) else ():
        if isinstance(record, dict) and isinstance(record.get("match"), dict):
            record["match"] = dict(_dotted(record["match"]))


def _dotted(table: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in table.items():
        if isinstance(value, dict):
            pairs.extend(_dotted(value, f"{prefix}{key}."))
        else:
            pairs.append((f"{prefix}{key}", value))
    return pairs


_DEFAULT_DOORS: Mapping[Kind, tuple[Door, ...]] = {
    "tui": ("paste",),
    "router": ("pane",),
    "service": ("inbox",),
}
_ID = re.compile(r"[a-z][a-z0-9]{0,31}")
_KEY = re.compile(r"(?:[CMS]-)*[A-Za-z0-9]{1,16}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SGR = re.compile(r"[0-9]{1,3}(?:[;:][0-9]{1,3})*")
_OURS = ("PEER_", "IAPEER_")


def _filled(spec: RuntimeSpec) -> RuntimeSpec:
    """Put in the defaults that depend on other keys."""
    return msgspec.structs.replace(
        spec,
        title=spec.title or spec.id,
        intelligence=spec.intelligence or ("artificial" if spec.kind == "tui" else "absent"),
        doors=spec.doors or _DEFAULT_DOORS[spec.kind],
    )


def _check(spec: RuntimeSpec) -> None:
    """Raise ManifestError for the first key that is well typed and makes no sense."""
    _need(bool(_ID.fullmatch(spec.id)), "id", f"{spec.id!r} is no runtime id", "use [a-z][a-z0-9]*")
    _need(spec.window >= 1, "window", f"{spec.window} is too small", "1 or more")
    _need(len(set(spec.doors)) == len(spec.doors), "doors", "the same door twice", "name each once")
    _check_launch(spec)
    _check_screen(spec.screen)
    _check_evidence(spec.evidence)
    for key, name in (
        ("submit.key", spec.submit.key),
        ("submit.empty_key", spec.submit.empty_key or "Enter"),
        ("control.interrupt", spec.control.interrupt or "Enter"),
    ):
        _check_key(key, name)
    _need(0 <= spec.submit.settle_ms <= 10_000, "submit.settle_ms", "out of range", "0 to 10000")
    _need(spec.control.compact.isprintable(), "control.compact", "more than one line", "one line")


def _check_launch(spec: RuntimeSpec) -> None:
    launch = spec.launch
    if spec.kind == "service":
        _need(not launch.argv, "launch.argv", "a service is not started by us", "leave it out")
        _need(spec.doors == ("inbox",), "doors", "a service reads its inbox", 'doors = ["inbox"]')
    else:
        _need(
            bool(launch.argv and launch.argv[0]), "launch.argv", "missing", "program and arguments"
        )
        _need("inbox" not in spec.doors, "doors", "inbox needs a service", 'kind = "service"')
    for key, argv in (("launch.argv", launch.argv), ("launch.resume_argv", launch.resume_argv)):
        for index, word in enumerate(argv):
            _check_template(f"{key}[{index}]", word)
    for name, value in launch.env.items():
        key = f"launch.env.{name}"
        _need(bool(_VARIABLE.fullmatch(name)), key, "no name of a variable", "letters, digits, _")
        _need(not name.startswith(_OURS), key, "set by iapeer itself", "leave it out")
        _check_template(key, value)
    _need(
        all(launch.strip_env), "launch.strip_env", "an empty prefix removes everything", "name it"
    )
    deadline = launch.boot_deadline_s
    _need(
        deadline is None or 0 < deadline <= 3600,
        "launch.boot_deadline_s",
        "out of range",
        "1 to 3600",
    )


def _check_screen(screen: Screen) -> None:
    for key in ("ready", "not_ready", "busy"):
        for index, expression in enumerate(getattr(screen, key)):
            _check_expression(f"screen.{key}[{index}]", expression)
    for index, dialog in enumerate(screen.dialogs):
        _check_expression(f"screen.dialogs[{index}].match", dialog.match)
        for key in dialog.keys:
            _check_key(f"screen.dialogs[{index}].keys", key)
    for index, glyph in enumerate(screen.prompt_glyphs):
        where = f"screen.prompt_glyphs[{index}]"
        _need(
            bool(glyph.strip()) and glyph.isprintable(), where, "no visible character", "e.g. '>'"
        )
    for index, pattern in enumerate(screen.paste_patterns):
        _need(bool(pattern.strip()), f"screen.paste_patterns[{index}]", "is empty", "plain text")
    for index, sgr in enumerate(screen.ghost_sgr):
        where = f"screen.ghost_sgr[{index}]"
        _need(
            bool(_SGR.fullmatch(sgr)), where, f"{sgr!r} is no SGR parameter", "e.g. 2 or 38;5;246"
        )


def _check_evidence(evidence: Evidence) -> None:
    both = bool(evidence.transcript) == bool(evidence.records)
    _need(both, "evidence", "transcript and records need each other", "give both or neither")
    used = _check_template("evidence.transcript", evidence.transcript)
    circular = used & {"transcript", "prompt_hook"}
    _need(not circular, "evidence.transcript", f"can't use {sorted(circular)}", "e.g. {state_dir}")
    for index, record in enumerate(evidence.records):
        key = f"evidence.records[{index}]"
        _need(bool(record.match), f"{key}.match", "matches every line", "name at least one value")
        tells = record.kind in ("user", "enqueue", "dequeue")
        _need(bool(record.text) == tells, f"{key}.text", *_TEXT_RULE)
        ends = record.kind == "turn_end" or not record.status
        _need(ends, f"{key}.status", "only a turn_end has one", "leave it out")


_TEXT_RULE = (
    "user, enqueue and dequeue need a path to their text, the others have none",
    'e.g. text = "message.content"',
)


def _check_template(key: str, template: str) -> frozenset[str]:
    _need("\0" not in template, key, "has a NUL character", "remove it")
    try:
        return placeholders(template)
    except ManifestError as error:
        raise ManifestError(f"{key}: {error.message}", hint=error.hint) from None


def _check_expression(key: str, expression: str) -> None:
    _need(bool(expression), key, "is empty and would always match", "a regular expression")
    try:
        re.compile(expression, re.MULTILINE)
    except re.error as error:
        raise ManifestError(
            f"{key}: {expression!r}: {error}", hint="a regular expression"
        ) from None


def _check_key(key: str, name: str) -> None:
    _need(bool(_KEY.fullmatch(name)), key, f"{name!r} is no key", "a tmux key: Enter, Down, C-c, 2")


def _need(holds: bool, key: str, what: str, hint: str) -> None:  # noqa: FBT001 - an assertion
    if not holds:
        raise ManifestError(f"{key}: {what}", hint=hint)
