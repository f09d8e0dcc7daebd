"""The manifest of behaviours and the tests agree: nothing is promised untested or claimed unheard.

`requirements/<area>.toml` lists what this product does, `<area>:<feature>[:<variant>]` each:
`kept` behaves as programs written for the original expect, `deviates` differs on purpose, `later`
is not built yet. A test claims what it proves with `@pytest.mark.requirement("<id>", ...)`.
Tests are read, not run: a claim counts also where its test is skipped.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]
MANIFEST = Path(__file__).with_name("requirements")
ID = re.compile(r"[a-z][a-z0-9-]*(:[a-z0-9][a-z0-9-]*){1,2}")
KEYS = {"id", "status", "text", "reason"}


@dataclass(frozen=True)
class Claim:
    """One id that one test claims; `where` is the test as pytest names it."""

    id: str
    where: str


def _requirements() -> list[tuple[str, dict[str, Any]]]:
    """Every entry with the area of its file."""
    found = []
    for path in sorted(MANIFEST.glob("*.toml")):
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        assert set(document) == {"requirement"}, path
        found += [(path.stem, entry) for entry in document["requirement"]]
    return found


def _claims(source: str, name: str) -> Iterator[Claim]:
    """Read the markers of one test file.

    Raises ValueError for a marker that is not on a test or whose ids are no plain strings.
    """
    tree = ast.parse(source)
    marks = {id(node) for node in ast.walk(tree) if _is_mark(node)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for call in node.decorator_list:
            if not isinstance(call, ast.Call) or not _is_mark(call):
                continue
            where = f"{name}::{node.name}"
            if not node.name.startswith("test_") or not call.args or call.keywords:
                raise ValueError(f"{where}: a requirement is claimed by a test, by its id")
            marks.discard(id(call))
            for argument in call.args:
                yield Claim(_written(argument, where), where)
    if marks:
        raise ValueError(f"{name}: a requirement is claimed by the decorator of a test only")


def _written(argument: ast.expr, where: str) -> str:
    match argument:
        case ast.Constant(value=str(text)):
            return text
    raise ValueError(f"{where}: an id must be written out")


def _is_mark(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.requirement"


def _all_claims() -> list[Claim]:
    return [
        claim
        for path in sorted(TESTS.rglob("test_*.py"))
        for claim in _claims(path.read_text(encoding="utf-8"), str(path.relative_to(TESTS)))
    ]


def test_every_entry_is_complete() -> None:
    entries = _requirements()
    assert entries
    for area, entry in entries:
        name = entry.get("id", "")
        assert set(entry) <= KEYS, name
        assert ID.fullmatch(name), name
        assert name.partition(":")[0] == area, f"{name} stands in {area}.toml"
        assert re.fullmatch(r"[A-Z].{10,200}\.", entry["text"]), name
        assert entry["status"] in ("kept", "deviates", "later"), name
        # Why it differs or waits; what is kept needs no excuse.
        assert bool(entry.get("reason")) == (entry["status"] != "kept"), name


def test_no_id_is_given_twice() -> None:
    ids = [entry["id"] for _, entry in _requirements()]
    assert sorted(ids) == sorted(set(ids))


def test_whatever_is_kept_is_proven_by_a_test() -> None:
    claimed = {claim.id for claim in _all_claims()}
    kept = {entry["id"] for _, entry in _requirements() if entry["status"] == "kept"}
    assert sorted(kept - claimed) == []


def test_whatever_a_test_claims_is_in_the_manifest() -> None:
    known = {entry["id"]: entry["status"] for _, entry in _requirements()}
    assert [claim for claim in _all_claims() if claim.id not in known] == []
    # What is not built yet can't be proven: its entry is out of date.
    assert [claim for claim in _all_claims() if known[claim.id] == "later"] == []


def test_no_test_claims_the_same_twice() -> None:
    claims = _all_claims()
    assert len(claims) == len(set(claims))


def test_claims_are_read_from_the_decorators_of_tests() -> None:
    source = '@pytest.mark.requirement("a:b", "a:c")\nasync def test_x(): ...\n'
    assert list(_claims(source, "t.py")) == [
        Claim("a:b", "t.py::test_x"),
        Claim("a:c", "t.py::test_x"),
    ]


@pytest.mark.parametrize(
    "source",
    [
        '@pytest.mark.requirement("a:b")\ndef helper(): ...\n',
        "@pytest.mark.requirement()\ndef test_x(): ...\n",
        "@pytest.mark.requirement(NAME)\ndef test_x(): ...\n",
        '@pytest.mark.requirement(id="a:b")\ndef test_x(): ...\n',
        'pytestmark = [pytest.mark.requirement("a:b")]\n',
    ],
)
def test_a_claim_that_would_be_overlooked_is_an_error(source: str) -> None:
    with pytest.raises(ValueError, match=r"t\.py"):
        list(_claims(source, "t.py"))
