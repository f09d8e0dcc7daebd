"""What a well-typed manifest must satisfy to make sense; each error names its key."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from iapeer.core.errors import ManifestError

from .spec import Evidence, File, RuntimeSpec, Screen
from .templates import placeholders

_ID = re.compile(r"[a-z][a-z0-9]{0,31}")
_KEY = re.compile(r"(?:[CMS]-)*[A-Za-z0-9]{1,16}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SGR = re.compile(r"[0-9]{1,3}(?:[;:][0-9]{1,3})*")
_OURS = ("PEER_", "IAPEER_")


def check(spec: RuntimeSpec) -> None:
    """Raise ManifestError for the first key that is well typed and makes no sense."""
    _need(bool(_ID.fullmatch(spec.id)), "id", f"{spec.id!r} is no runtime id", "use [a-z][a-z0-9]*")
    _need(spec.window >= 1, "window", f"{spec.window} is too small", "1 or more")
    _need(len(set(spec.doors)) == len(spec.doors), "doors", "the same door twice", "name each once")
    _check_launch(spec)
    _check_screen(spec.screen)
    _check_evidence(spec.evidence)
    _check_errors(spec)
    for key, name in (
        ("submit.key", spec.submit.key),
        ("submit.empty_key", spec.submit.empty_key or "Enter"),
        ("control.interrupt", spec.control.interrupt or "Enter"),
    ):
        _check_key(key, name)
    for index, name in enumerate(spec.submit.erase_keys):
        _check_key(f"submit.erase_keys[{index}]", name)
    _need(0 <= spec.submit.settle_ms <= 10_000, "submit.settle_ms", "out of range", "0 to 10000")
    for index, expression in enumerate(spec.control.compact_refused):
        _check_expression(f"control.compact_refused[{index}]", expression)
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
    for key, argv in (
        ("launch.argv", launch.argv),
        ("launch.resume_argv", launch.resume_argv),
        ("launch.server_argv", launch.server_argv),
    ):
        for index, word in enumerate(argv):
            used = _check_template(f"{key}[{index}]", word)
            _need("secret" not in used, f"{key}[{index}]", *_SECRET_RULE)
    needs_unix = bool(launch.server_argv) <= (launch.endpoint == "unix")
    _need(needs_unix, "launch.server_argv", "nobody could reach it", 'endpoint = "unix"')
    for door, endpoint in (("appserver", "unix"), ("http", "http")):
        fits = door not in spec.doors or launch.endpoint == endpoint
        _need(fits, "launch.endpoint", f"the door {door} needs one", f'endpoint = "{endpoint}"')
    for index, file in enumerate(launch.files):
        _check_file(f"launch.files[{index}]", file)
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


def _check_file(key: str, file: File) -> None:
    _check_template(f"{key}.path", file.path)
    private = file.path.startswith("{state_dir}/")
    own_home = file.when == "isolated" and file.path.startswith("{home}/")
    _need(private or own_home, f"{key}.path", *_FILE_RULE)
    _need(".." not in Path(file.path).parts, f"{key}.path", "leaves its folder", "no ..")
    for where, text in _strings(f"{key}.content", file.content):
        _need("secret" not in _check_template(where, text), where, *_SECRET_RULE)


_SECRET_RULE = ("a secret would be readable by others", "put it into launch.env")
_FILE_RULE = (
    "is outside of what is ours to write",
    'begin with {state_dir}/, or with {home}/ and when = "isolated"',
)


def _strings(key: str, value: object) -> Iterator[tuple[str, str]]:
    """Yield every string in a value of TOML, with where it stands; keys of tables too."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield f"{key}.{name}", name
            yield from _strings(f"{key}.{name}", inner)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _strings(f"{key}[{index}]", inner)


def _check_errors(spec: RuntimeSpec) -> None:
    for index, expression in enumerate(spec.errors.reset):
        key = f"errors.reset[{index}]"
        _check_expression(key, expression)
        groups = set(re.compile(expression).groupindex)
        known = {"epoch", "seconds", "minutes", "hours", "clock", "date"}
        _need(bool(groups) and groups <= known, key, "needs named groups", ", ".join(sorted(known)))


def _check_screen(screen: Screen) -> None:
    for key in ("ready", "not_ready", "busy"):
        for index, expression in enumerate(getattr(screen, key)):
            _check_expression(f"screen.{key}[{index}]", expression)
    for index, dialog in enumerate(screen.dialogs):
        _check_expression(f"screen.dialogs[{index}].match", dialog.match)
        for key in dialog.keys:
            _check_key(f"screen.dialogs[{index}].keys", key)
    for index, failure in enumerate(screen.failures):
        _check_expression(f"screen.failures[{index}].match", failure.match)
    for index, glyph in enumerate(screen.prompt_glyphs):
        where = f"screen.prompt_glyphs[{index}]"
        _need(
            bool(glyph.strip()) and glyph.isprintable(), where, "no visible character", "e.g. '>'"
        )
    for key in ("paste_patterns", "shortened"):
        for index, pattern in enumerate(getattr(screen, key)):
            _need(bool(pattern.strip()), f"screen.{key}[{index}]", "is empty", "plain text")
    for index, sgr in enumerate(screen.ghost_sgr):
        where = f"screen.ghost_sgr[{index}]"
        _need(
            bool(_SGR.fullmatch(sgr)), where, f"{sgr!r} is no SGR parameter", "e.g. 2 or 38;5;246"
        )


def _check_evidence(evidence: Evidence) -> None:
    both = bool(evidence.transcript) == bool(evidence.records)
    _need(both, "evidence", "transcript and records need each other", "give both or neither")
    used = _check_template("evidence.status_file", evidence.status_file)
    known = used <= {"home", "pid"}
    _need(known, "evidence.status_file", "can use {home} and {pid} only", "{home}/…/{pid}.json")
    used = _check_template("evidence.transcript", evidence.transcript)
    circular = used & {"transcript", "prompt_hook"}
    _need(not circular, "evidence.transcript", f"can't use {sorted(circular)}", "e.g. {state_dir}")
    for index, record in enumerate(evidence.records):
        key = f"evidence.records[{index}]"
        _need(bool(record.match), f"{key}.match", "matches every line", "name at least one value")
        tells = record.kind in ("user", "enqueue", "dequeue")
        ends = record.kind == "turn_end"
        _need(ends or bool(record.text) == tells, f"{key}.text", *_TEXT_RULE)
        for field in ("status", "ends", "error", "at"):
            has = bool(getattr(record, field)) and not (field == "at" and record.kind == "user")
            _need(ends or not has, f"{key}.{field}", "only a turn_end has one", "leave it out")
        said = record.kind == "user" or not record.begins
        _need(said, f"{key}.begins", "only a turn's user input has it", "leave it out")
        one = not (record.status and record.ends)
        _need(one, f"{key}.ends", "status says how the turn ended", "give one of them")


_TEXT_RULE = (
    "user, enqueue and dequeue need a path to their text, others but turn_end have none",
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
