"""What the reference pages need to know about the source: found by reading, not by running it."""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast

from iapeer.core import errors
from iapeer.core.errors import IapeerError

SOURCE = Path(__file__).resolve().parents[1] / "src" / "iapeer"


class ErrorSite(NamedTuple):
    """A place that makes an error; `waits`: it says when to try again."""

    code: str
    kind: type[IapeerError]
    waits: bool
    module: Path


@functools.cache
def trees() -> Mapping[Path, ast.Module]:
    """Return the syntax tree of every module of the package."""
    return {
        path.relative_to(SOURCE): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(SOURCE.rglob("*.py"))
    }


def read_attributes(*, besides: Sequence[str] = ()) -> set[tuple[str, str]]:
    """Return (last name of the object, attribute) of every attribute the package reads."""
    found = set()
    for path, tree in trees().items():
        if path.as_posix() in besides:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                found.add((tail(node.value), node.attr))
    return found


def error_sites() -> Iterator[ErrorSite]:
    """Yield every place that makes an error with a code that stands in the source."""
    for path, tree in trees().items():
        helpers: dict[str, tuple[int, ErrorSite]] = {}
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef):
                helpers.update(_helper(function, path))
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            site = _site(node, path)
            if site is not None:
                yield site
            elif tail(node.func) in helpers:
                position, like = helpers[tail(node.func)]
                if position < len(node.args) and isinstance(node.args[position], ast.Constant):
                    code = cast("ast.Constant", node.args[position])
                    yield like._replace(code=str(code.value))


def _site(node: ast.Call, path: Path) -> ErrorSite | None:
    """Return the error a call makes; None for another call and for a code that is computed."""
    kind = error_classes().get(tail(node.func))
    if kind is None:
        return None
    given = {keyword.arg: keyword.value for keyword in node.keywords}
    code = given.get("code", ast.Constant(kind.code))
    if not isinstance(code, ast.Constant):
        return None
    return ErrorSite(str(code.value), kind, "retry_after_s" in given, path)


def _helper(function: ast.FunctionDef, path: Path) -> Iterator[tuple[str, tuple[int, ErrorSite]]]:
    """Yield a function that hands its own argument on as the code: name, position, and the rest."""
    names = [argument.arg for argument in function.args.args]
    for node in ast.walk(function):
        if not isinstance(node, ast.Call) or tail(node.func) not in error_classes():
            continue
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        code = given.get("code")
        if isinstance(code, ast.Name) and code.id in names:
            kind = error_classes()[tail(node.func)]
            site = ErrorSite("", kind, "retry_after_s" in given, path)
            yield function.name, (names.index(code.id), site)


@functools.cache
def error_classes() -> dict[str, type[IapeerError]]:
    """Return the error classes by name."""
    return {
        name: kind
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, IapeerError)
    }


def field_docs(kind: type) -> dict[str, str]:
    """Return the docstrings below the fields of a class, by field."""
    (body,) = ast.parse(inspect.getsource(kind)).body
    found = {}
    lines = cast("ast.ClassDef", body).body
    for line, after in itertools.pairwise(lines):
        if isinstance(line, ast.AnnAssign) and isinstance(after, ast.Expr):
            text = ast.literal_eval(after.value)
            found[cast("ast.Name", line.target).id] = " ".join(text.split())
    return found


def tail(node: ast.expr) -> str:
    """Return the last name of an expression: `settings` of `self._s.settings`."""
    if isinstance(node, ast.Call):
        return tail(node.func)
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
