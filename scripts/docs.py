"""Writes the parts of docs/ whose content is code: `python scripts/docs.py --write | --check`.

A generated part stands between `<!-- begin generated: X -->` and `<!-- end generated -->`; X is a
key of `PARTS`. What no docstring says (what a setting without one is for, ...) is in `docs.toml`
next to this file; something that is described nowhere is an error. "No effect in this version" is
found by looking for code that reads the thing, so it goes away by itself.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec

from iapeer.cli import grammar
from iapeer.cli.send import REASONS
from iapeer.cli.verbs import VERBS
from iapeer.core import env, states
from iapeer.core.errors import IapeerError
from iapeer.core.settings import Settings, make_settings
from iapeer.daemon import api, asks, fleet_routes
from iapeer.daemon.answers import status_of
from iapeer.daemon.mcp import tool as mcp
from iapeer.runtimes import spec
from iapeer.runtimes.allowed import allowed_at
from iapeer.runtimes.templates import PLACEHOLDERS

PROJECT = Path(__file__).resolve().parents[1]
if str(PROJECT) not in sys.path:
    sys.path.insert(0, str(PROJECT))  # as a script only this folder is on the path

from scripts.docs_facts import (  # noqa: E402 - the path comes first
    error_classes,
    error_sites,
    field_docs,
    read_attributes,
)

DOCS = PROJECT / "docs"
_PART = re.compile(
    r"(?P<head><!-- begin generated: (?P<name>[\w-]+) -->\n).*?(?P<tail><!-- end generated -->)",
    re.DOTALL,
)
_UNUSED = "*No effect in this version.*"
_HOME = Path("/~")
_REPAIR = "python scripts/docs.py --write"


@functools.cache
def words() -> Mapping[str, Mapping[str, Any]]:
    """Return `docs.toml`."""
    return tomllib.loads(Path(__file__).with_name("docs.toml").read_text(encoding="utf-8"))


def word(table: str, key: str) -> str:
    """Return what `docs.toml` says. Raises SystemExit naming what is missing."""
    found = words()[table].get(key)
    if not found:
        raise SystemExit(f"scripts/docs.toml: [{table}] says nothing about {key!r}")
    return str(found)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; `|` in cells is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in line) + " |"
        for line in lines
    )


# -- the parts ------------------------------------------------------------------------------------


def verbs() -> str:
    """Every verb as `iapeer help <verb>` explains it."""
    overview = table(
        ("verb", "what it does"), ((f"[`{v.name}`](#{v.name})", v.purpose) for v in VERBS)
    )
    sections = [f"## {v.name}\n\n```text\n{grammar.explain(v)}\n```" for v in VERBS]
    return "\n\n".join([overview, *sections])


def settings_table() -> str:
    """Every field of `Settings` with its default and its variable."""
    said = field_docs(Settings)
    holders = {"settings", "_settings", "load_settings"}
    used = {name for of, name in read_attributes() if of in holders}
    variables = setting_variables()
    rows = []
    for field in msgspec.structs.fields(Settings):
        name = field.name
        text = said.get(name) or word("settings", name)
        rows.append(
            (
                f"`{name}`",
                f"`{_default(field)}`",
                f"`{variables[name]}`" if name in variables else "",
                text if name in used else f"{text} {_UNUSED}",
            )
        )
    return table(("key", "default", "variable", "meaning"), rows)


def setting_variables() -> dict[str, str]:
    """Return the variable that sets a field, by field: found by setting each to a probe."""
    base = {env.HOME: str(_HOME)}
    plain = make_settings(base)
    found: dict[str, str] = {}
    for variable in environment_names():
        changed = make_settings({**base, variable: "/7" if variable in _PATHS else "7"})
        for name in Settings.__struct_fields__:
            # A root or a HOME moves others along: the first field it changes is its own.
            if getattr(changed, name) != getattr(plain, name):
                found.setdefault(name, variable)
                break
    return {**found, "root": env.ROOT, "home": env.HOME}


_PATHS = {env.HOME, env.ROOT, env.SOCK_DIR, env.DAEMON_SOCKET, env.RUNTIMES_DIR, env.TMUX}


def environment_names() -> tuple[str, ...]:
    """Return all variables iapeer knows."""
    return tuple(
        value for name, value in vars(env).items() if name.isupper() and isinstance(value, str)
    )


def environment() -> str:
    """Every variable of core/env.py."""
    used = {name for of, name in read_attributes() if of == "env"}
    names = {value: name for name, value in vars(env).items() if isinstance(value, str)}
    rows = []
    for value in environment_names():
        text = word("environment", value)
        rows.append((f"`{value}`", text if names[value] in used else f"{text} {_UNUSED}"))
    return table(("variable", "meaning"), rows)


def state_table() -> str:
    """The states of a message."""
    rows = ((f"`{s}`", word("states", s), _groups(s)) for s in states.MessageState)
    return table(("state", "meaning", "counts as"), rows)


def _groups(state: states.MessageState) -> str:
    named = {
        "delivered": states.DELIVERED,
        "undelivered": states.UNDELIVERED,
        "final": states.FINAL,
    }
    return ", ".join(name for name, group in named.items() if state in group)


def transitions() -> str:
    """The steps, event by event."""
    rows = []
    for event in states.Event:
        steps = [
            f"`{before}` → `{after}`"
            for (before, what), after in states.TRANSITIONS.items()
            if what == event
        ]
        rows.append((f"`{event}`", word("events", event), ", ".join(steps)))
    return table(("event", "what happened", "steps"), rows)


def holds() -> str:
    """Why a message can wait."""
    used = {name for of, name in read_attributes(besides=["core/states.py"]) if of == "HoldReason"}
    rows = []
    for reason in states.HoldReason:
        text = word("holds", reason)
        shown = f"“{REASONS[reason]}”"
        rows.append((f"`{reason}`", shown, text if reason.name in used else f"{text} {_UNUSED}"))
    return table(("reason", "`send` says", "until when"), rows)


def error_table() -> str:
    """Every error code with its HTTP status."""
    kinds = {kind.code: kind for kind in reversed(error_classes().values())}
    statuses: dict[str, set[str]] = {code: set() for code in [*kinds, *words()["errors"]]}
    for code, kind, waits, path in error_sites():
        shown = statuses.setdefault(code, set())
        if path.parts[0] not in {"cli", "client", "apps"}:
            error = kind("", code=code, retry_after_s=1.0) if waits else _plain(kind, code)
            shown.add(str(status_of(error)))
    missing = sorted(statuses.keys() - kinds.keys() - words()["errors"].keys())
    if missing:
        raise SystemExit(f"scripts/docs.toml: [errors] says nothing about: {', '.join(missing)}")
    rows = []
    for code in sorted(statuses):
        said = (kinds[code].__doc__ or "").split("\n\n")[0] if code in kinds else ""
        rows.append(
            (
                f"`{code}`",
                " or ".join(sorted(statuses[code])) or str(words()["status"].get(code, "-")),
                words()["errors"].get(code) or said,
            )
        )
    return table(("code", "HTTP", "meaning"), rows)


def _plain(kind: type[IapeerError], code: str) -> IapeerError:
    error = kind("")
    error.code = code
    return error


def routes() -> str:
    """The HTTP endpoints."""
    unused: Any = None  # nothing is called: only the routes are asked for
    rows = []
    for route in api.Api(unused, unused, unused).routes():
        (method,) = route.methods or {""}
        key = f"{method} {route.path.removeprefix(api.PREFIX)}"
        rows.append((f"`{method} {route.path}`", word("who", key), word("routes", key)))
    return table(("endpoint", "who", "what it does and answers"), rows)


def bodies() -> str:
    """The request bodies."""
    parts = []
    named = {**vars(api), **vars(asks), **vars(fleet_routes)}
    kinds = [kind for name, kind in named.items() if name.endswith("Body") and len(name) > 4]
    for kind in kinds:
        rows = [
            (f"`{f.encode_name}`", _type(kind, f.name), _needed(f))
            for f in msgspec.structs.fields(kind)
        ]
        parts.append(f"{kind.__doc__}\n\n{table(('key', 'type', 'default'), rows)}")
    return "\n\n".join(parts)


def manifest() -> str:
    """Every key of a runtime manifest."""
    sections: tuple[tuple[str, type, str], ...] = (
        ("Top level", spec.RuntimeSpec, ""),
        ("`[launch]`", spec.Launch, "launch."),
        ("`[[launch.files]]`", spec.File, "launch.files[0]."),
        ("`[screen]`", spec.Screen, "screen."),
        ("`[[screen.dialogs]]`", spec.Dialog, "screen.dialogs[0]."),
        ("`[[screen.failures]]`", spec.Failure, "screen.failures[0]."),
        ("`[submit]`", spec.Submit, "submit."),
        ("`[control]`", spec.Control, "control."),
        ("`[evidence]`", spec.Evidence, "evidence."),
        ("`[[evidence.records]]`", spec.Record, "evidence.records[0]."),
        ("`[errors]`", spec.Errors, "errors."),
        ("`[tested]`", spec.Tested, "tested."),
    )
    besides = ["runtimes/spec.py", "runtimes/manifest.py", "runtimes/checks.py"]
    used = read_attributes(besides=besides) | _READ_BY_SPEC
    tables = {kind for _, kind, _ in sections}
    parts = []
    for title, kind, prefix in sections:
        said, rows = field_docs(kind), []
        for field in msgspec.structs.fields(kind):
            if _element(field.type) in tables:
                continue
            text = said.get(field.name) or word("manifest", prefix + field.name)
            rows.append(
                (
                    f"`{field.name}`",
                    _allowed(prefix + field.name),
                    _needed(field),
                    text if used & _readers(kind, field.name) else f"{text} {_UNUSED}",
                )
            )
        summary = " ".join((kind.__doc__ or "").split())
        body = table(("key", "allowed", "default", "meaning"), rows)
        parts.append(f"### {title}\n\n{summary}\n\n{body}")
    return "\n\n".join(parts)


_READ_BY_SPEC = {("evidence", "prompt_hook"), ("evidence", "hooks")}
"""`RuntimeSpec.proves_seen` reads them; the rest of that module only declares."""


def _readers(kind: type, name: str) -> set[tuple[str, str]]:
    """Return how code that uses a manifest key would spell it."""
    if kind in {spec.Dialog, spec.Record, spec.File, spec.Failure}:
        return _READ_BY_SPEC  # their keys come as a whole, and all are used
    return {(kind.__name__.removeprefix("Runtime").lower(), name)}


def _allowed(key: str) -> str:
    """Return what may stand at a key, from the words an error message has for it."""
    text = allowed_at(spec.RuntimeSpec, key).removeprefix("give ")
    text = text.replace("a list; of each element: give a string", "list of strings")
    text = text.replace("a list; of each element: allowed: ", "list of: ")
    return text.removeprefix("allowed: ")


def placeholders() -> str:
    """The placeholders of manifest strings."""
    rows = ((f"`{{{n}}}`", f"`{t}`" if "<" in t else t) for n, t in PLACEHOLDERS.items())
    return table(("placeholder", "stands for"), rows)


def tool() -> str:
    """The MCP tool as a model sees it."""
    required = mcp.SCHEMA["required"]
    rows = [
        (f"`{name}`", "yes" if name in required else "no", _limits(about), about["description"])
        for name, about in mcp.SCHEMA["properties"].items()
    ]
    quoted = "\n".join(f"> {line}".rstrip() for line in mcp.TOOL["description"].splitlines())
    return f"`{mcp.TOOL_NAME}`\n\n{quoted}\n\n" + table(
        ("argument", "required", "limits", "meaning"), rows
    )


def _limits(about: Mapping[str, Any]) -> str:
    keys = ("type", "pattern", "minLength", "maxLength", "maxItems")
    return ", ".join(f"{key} `{about[key]}`" for key in keys if key in about)


PARTS: Mapping[str, Callable[[], str]] = {
    "verbs": verbs,
    "settings": settings_table,
    "environment": environment,
    "states": state_table,
    "transitions": transitions,
    "holds": holds,
    "errors": error_table,
    "routes": routes,
    "bodies": bodies,
    "manifest": manifest,
    "placeholders": placeholders,
    "tool": tool,
}
"""What can be generated, by the name in the marker."""


# -- small things ---------------------------------------------------------------------------------


def _default(field: msgspec.structs.FieldInfo) -> str:
    """Return a setting's default as a user writes it."""
    value = getattr(make_settings({env.HOME: str(_HOME)}), field.name)
    if isinstance(value, Path):
        return str(value).removeprefix("/")
    return _toml(value)


def _json(field: msgspec.structs.FieldInfo) -> str:
    default = field.default
    if default is msgspec.NODEFAULT:
        factory = cast("Callable[[], object]", field.default_factory)
        default = factory()
    return _toml(default)


def _toml(value: object) -> str:
    return "none" if value is None else msgspec.json.encode(value).decode()


def _needed(field: msgspec.structs.FieldInfo) -> str:
    return "required" if field.required else f"`{_json(field)}`"


def _type(kind: type, name: str) -> str:
    shown = str(inspect.get_annotations(kind)[name])
    if "tuple[" in shown:
        return "list of strings"
    return {"bool": "boolean"}.get(shown, "string")


def _element(kind: object) -> object:
    """Return the class of a field, or of its elements."""
    return kind.__args__[0] if hasattr(kind, "__args__") and kind.__args__ else kind


def render(text: str) -> str:
    """Return a page with its generated parts made anew. Raises SystemExit for an unknown one."""

    def fill(found: re.Match[str]) -> str:
        make = PARTS.get(found["name"])
        if make is None:
            raise SystemExit(f"no generated part is called {found['name']!r}")
        return f"{found['head']}\n{make()}\n\n{found['tail']}"

    return _PART.sub(fill, text)


def pages() -> list[Path]:
    """Return all pages of docs/."""
    return sorted(DOCS.rglob("*.md"))


def main(argv: Sequence[str]) -> int:
    """Write or check; returns the exit status."""
    if list(argv) not in (["--write"], ["--check"]):
        sys.stderr.write("usage: python scripts/docs.py --write | --check\n")
        return 2
    stale, failed = [], False
    for page in pages():
        text = page.read_text(encoding="utf-8")
        try:
            fresh = render(text)
        except SystemExit as error:
            sys.stderr.write(f"{page.relative_to(PROJECT)}: {error}\n")
            failed = True
            continue
        if fresh != text:
            stale.append(page)
            if argv[0] == "--write":
                page.write_text(fresh, encoding="utf-8")
    for page in stale:
        did = "written" if argv[0] == "--write" else f"out of date: run `{_REPAIR}`"
        sys.stdout.write(f"{page.relative_to(PROJECT)}: {did}\n")
    return 1 if failed or (stale and argv[0] == "--check") else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
