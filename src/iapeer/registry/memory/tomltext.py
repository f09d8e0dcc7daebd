"""Cutting whole tables out of TOML text.

A TOML library takes the comments before the next header for the end of the table above, and drops
them with it; they are the user's words about what follows.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from typing import Any

_Keys = tuple[str, ...]


def cut_tables(text: str, tables: Iterable[_Keys]) -> str:
    """Return TOML `text` without the tables that stand in it under a header of their own.

    The comments behind a table's last line stay. A table that can't be cut without changing
    something else is left in.
    """
    for keys in tables:
        text = _cut(text, keys)
    return text


def _cut(text: str, keys: _Keys) -> str:
    lines = text.splitlines(keepends=True)
    begin = next((n for n, line in enumerate(lines) if _header(line) == keys), None)
    if begin is None:
        return text
    end = next(
        (n for n in range(begin + 1, len(lines)) if lines[n].lstrip().startswith("[")), len(lines)
    )
    after = _tail(lines[begin + 1 : end])
    result = "".join([*lines[:begin], *after, *lines[end:]])
    return result if _without(tomllib.loads(text), keys) == _loaded(result) else text


def _header(line: str) -> _Keys | None:
    """Return the name of the table a line begins, None for any other line."""
    if not line.lstrip().startswith("["):
        return None
    node: object = _loaded(line)
    found: list[str] = []
    while isinstance(node, dict) and len(node) == 1:
        (key,) = node
        found.append(key)
        node = node[key]
    return tuple(found) if node == {} else None


def _tail(body: Sequence[str]) -> Sequence[str]:
    """Return the comments behind the last key of a table, without blank lines before them."""
    last = 0
    for number, line in enumerate(body, 1):
        if line.strip() and not line.lstrip().startswith("#"):
            last = number
    rest = list(body[last:])
    while rest and not rest[0].strip():
        rest.pop(0)
    return rest


def _loaded(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except ValueError:
        return None


def _without(document: dict[str, Any], keys: _Keys) -> dict[str, Any]:
    """Return a document without a table and the tables that are empty then."""
    above, node = [], document
    for key in keys[:-1]:
        above.append((node, key))
        node = node[key]
    del node[keys[-1]]
    for parent, key in reversed(above):
        if parent[key]:
            break
        del parent[key]
    return document
