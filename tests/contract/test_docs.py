"""The user documentation says what the code does, all of it, and its links and commands work."""

from __future__ import annotations

import ast
import functools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from iapeer.cli import grammar
from iapeer.cli.verbs import VERBS
from iapeer.core import env
from iapeer.core.settings import Settings
from iapeer.core.states import Event, HoldReason, MessageState
from iapeer.daemon.api import Api
from iapeer.daemon.mcp.tool import SCHEMA
from iapeer.runtimes.spec import RuntimeSpec
from iapeer.storage.logs import Delivery, delivery_record
from iapeer.storage.paths import Paths
from scripts import docs, docs_facts

PROJECT = Path(__file__).parents[2]
DOCS = PROJECT / "docs"
REFERENCE = DOCS / "reference"
PAGES = sorted(DOCS.rglob("*.md"))
LINKED = [*PAGES, PROJECT / "README.md", PROJECT / "ARCHITECTURE.md"]
_FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(
    r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|<img[^>]*src=\"([^\"]+)\"|!\[[^\]]*\]\(([^)\s]+)\)"
)


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def _name(page: Path) -> str:
    return page.relative_to(PROJECT).as_posix()


def _prose(page: Path) -> str:
    return _FENCE.sub("", _text(page))


def _first_cells(page: Path) -> set[str]:
    """Return what stands in backquotes in the first column of a page's tables."""
    rows = re.findall(r"^\| ([^|]*) \|", _text(page), re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def _commands(page: Path) -> Iterator[str]:
    for language, block in _FENCE.findall(_text(page)):
        if language == "sh":
            yield from (line.strip() for line in block.splitlines() if line.strip())


# -- up to date -----------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_the_generated_parts_of_a_page_are_what_the_code_says(page: Path) -> None:
    assert docs.render(_text(page)) == _text(page), "run: python scripts/docs.py --write"


def test_every_part_that_can_be_generated_stands_on_exactly_one_page() -> None:
    found = re.findall(r"<!-- begin generated: ([\w-]+) -->", "".join(map(_text, PAGES)))
    assert sorted(found) == sorted(docs.PARTS)


def test_every_generated_part_has_its_end() -> None:
    for page in PAGES:
        text = _text(page)
        assert text.count("<!-- begin generated") == text.count("<!-- end generated -->"), page


def test_a_stale_part_is_noticed() -> None:
    page = _text(REFERENCE / "states.md")
    assert docs.render(page.replace("`landed`", "`arrived`")) != page.replace(
        "`landed`", "`arrived`"
    )


def test_a_part_nobody_can_make_is_an_error() -> None:
    with pytest.raises(SystemExit, match="weather"):
        docs.render("<!-- begin generated: weather -->\n<!-- end generated -->")


# -- complete -------------------------------------------------------------------------------------


def test_every_verb_is_documented_with_all_its_options() -> None:
    text = _text(REFERENCE / "cli.md")
    for verb in VERBS:
        assert f"\n## {verb.name}\n" in text
        assert grammar.explain(verb) in text


def test_every_setting_is_documented() -> None:
    assert set(Settings.__struct_fields__) <= _first_cells(REFERENCE / "settings.md")


def test_every_environment_variable_is_documented() -> None:
    names = {v for k, v in vars(env).items() if k.isupper() and isinstance(v, str)}
    assert names <= _first_cells(REFERENCE / "settings.md")


def test_every_variable_of_a_setting_stands_beside_it() -> None:
    text = _text(REFERENCE / "settings.md")
    for name in ("PORT", "BEARER_TOKEN", "BOOT_LIMIT", "TTL_SECS", "SOCK_DIR", "ROOT", "TMUX"):
        assert re.search(rf"^\| `\w+` \| `[^|]*` \| `IAPEER_{name}` \|", text, re.MULTILINE), name


def test_every_http_endpoint_is_documented() -> None:
    routes = Api(None, None, None).routes()  # type: ignore[arg-type]
    endpoints = {f"{method} {route.path}" for route in routes for method in route.methods or ()}
    assert endpoints <= _first_cells(REFERENCE / "http-api.md")
    assert "POST /mcp" in _text(REFERENCE / "http-api.md")


def test_every_state_event_and_hold_reason_is_documented() -> None:
    words = {*MessageState, *HoldReason, *Event}
    assert {str(word) for word in words} <= _first_cells(REFERENCE / "states.md")


def test_every_error_code_of_the_source_is_documented() -> None:
    codes = {site.code for site in docs_facts.error_sites()}
    codes |= {kind.code for kind in docs_facts.error_classes().values()}
    assert {"queue_full", "unknown_peer", "rate_limited"} <= codes
    assert codes <= _first_cells(REFERENCE / "http-api.md")


def test_every_manifest_key_is_documented() -> None:
    text = _text(REFERENCE / "manifest.md")
    sections = dict(
        re.findall(r"^### (.*?)\n(.*?)(?=^### |^## |\Z)", text, re.DOTALL | re.MULTILINE)
    )
    seen = set()

    def check(kind: type[msgspec.Struct], section: str, prefix: str) -> None:
        for field in msgspec.structs.fields(kind):
            inner = getattr(field.type, "__args__", (field.type,))[0]
            if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
                name = f"{prefix}{field.name}"
                shown = f"`[{name}]`" if inner is field.type else f"`[[{name}]]`"
                check(inner, shown, f"{name}.")
            else:
                assert f"| `{field.name}` |" in sections[section], f"{prefix}{field.name}"
                seen.add(f"{prefix}{field.name}")

    check(RuntimeSpec, "Top level", "")
    assert {"id", "launch.argv", "screen.dialogs.keys", "evidence.records.match"} <= seen


def test_every_argument_of_the_mcp_tool_is_documented() -> None:
    assert set(SCHEMA["properties"]) <= _first_cells(REFERENCE / "mcp.md")


def test_every_key_of_the_delivery_log_is_documented() -> None:
    full = Delivery(
        caller="c", to="t", ok=True, elapsed_ms=1, length=1, runtime="r", via="v", woke=True,
        queued=True, queue_kind="k", queue_depth=1, topic="t", path="cli", message_id="i",
        state="held",
    )  # fmt: skip
    refused = msgspec.structs.replace(full, ok=False, error="e")
    lines = delivery_record(0, full) + " " + delivery_record(0, refused)
    keys = set(re.findall(r"(\w+)=", lines))
    assert {"ts", "err", "qkind", "via"} <= keys
    assert keys <= _first_cells(REFERENCE / "logs.md")


def test_every_event_of_the_lifecycle_log_is_documented() -> None:
    events = {
        node.args[0].value
        for path, tree in docs_facts.trees().items()
        if path.parts[0] in {"host", "routing", "sessions", "daemon"}
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and docs_facts.tail(node.func) in {"log", "_log"}
        and node.args
        and isinstance(node.args[0], ast.Constant)
    }
    assert {"wake", "end"} <= events
    assert events <= _first_cells(REFERENCE / "logs.md")


def test_every_folder_and_file_a_daemon_makes_is_documented() -> None:
    root = Path("/root-of-the-test")
    paths = Paths(root)
    text = _text(REFERENCE / "files.md") + _text(REFERENCE / "logs.md")
    made = [*paths.private_dirs(), paths.registry, paths.registry_lock, paths.ledger]
    made += [paths.discovery, paths.daemon_lock, paths.settings_file, paths.quarantine]
    for path in made:
        name = path.relative_to(root).as_posix()
        assert name == "." or f"{name}/" in text or f"`{name}" in text, name
    for log in (paths.delivery_log, paths.lifecycle_log, paths.exits_log):
        assert f"## {log.name}" in text


# -- true -----------------------------------------------------------------------------------------


@functools.cache
def _anchors(page: Path) -> frozenset[str]:
    """Return the anchors of a page as GitHub makes them."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", _FENCE.sub("", _text(page)), re.MULTILINE):
        plain = re.sub(r"[`*]|\[|\]\([^)]*\)|\]", "", heading).strip().lower()
        found.add(re.sub(r"[^\w\- ]", "", plain).replace(" ", "-"))
    return frozenset(found)


@pytest.mark.parametrize("page", LINKED, ids=_name)
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for groups in _LINK.findall(_prose(page)):
        target = next(filter(None, groups))
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        place = (page.parent / file).resolve() if file else page
        assert place.exists(), f"{_name(page)}: {target}"
        if anchor:
            assert anchor in _anchors(place), f"{_name(page)}: {target}"


def test_every_page_can_be_reached_from_another_one() -> None:
    linked = set()
    for page in LINKED:
        for groups in _LINK.findall(_prose(page)):
            file = next(filter(None, groups)).partition("#")[0]
            linked.add((page.parent / file).resolve())
    assert {page for page in PAGES if page not in linked and page.name != "README.md"} == set()


@pytest.mark.parametrize("page", LINKED, ids=_name)
def test_every_iapeer_command_of_a_page_has_verbs_and_options_that_exist(page: Path) -> None:
    for command in _commands(page):
        words = shlex.split(command, comments=True)
        if words[0] == "iapeer":
            # Raises UsageError for an unknown verb, an unknown option or a word too many.
            grammar.parse(grammar.find(words[1]), words[2:])


def test_commands_are_looked_at() -> None:
    found = [command for page in PAGES for command in _commands(page)]
    assert sum(command.startswith("iapeer ") for command in found) > 20


@pytest.mark.parametrize("page", LINKED, ids=_name)
def test_every_python_example_of_a_page_compiles(page: Path) -> None:
    for language, block in _FENCE.findall(_text(page)):
        if language == "python":
            compile(block, _name(page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
