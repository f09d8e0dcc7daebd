"""JSON for processes that must be short: the C functions below the standard library's `json`.

Importing `json` takes `re` and `enum` along, 7 of the 12 ms that a hook spends on imports
(measured: CPython 3.11). CPython keeps what does the work in `_json`; an interpreter without it,
and a value or a text that is out of the ordinary, gets the real package.
"""

from __future__ import annotations

try:
    from _json import encode_basestring_ascii as _quote
    from _json import make_scanner as _make_scanner
except ImportError:  # another interpreter than CPython
    from json.encoder import encode_basestring_ascii as _quote
    from json.scanner import make_scanner as _make_scanner

_BLANKS = " \t\n\r"


class _Rules:
    """How texts are read: the names a scanner asks for, with what `json.loads` has there."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float  # NaN, Infinity, -Infinity
    memo: dict[str, str] = {}  # noqa: RUF012 - read by the scanner written in Python only


def dumps(value: object) -> str:
    """Return a value as JSON in ASCII. Raises TypeError and ValueError as `json.dumps` does."""
    if isinstance(value, str):
        return _quote(value)
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return "{" + ", ".join(f"{_quote(n)}: {dumps(v)}" for n, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(dumps, value)) + "]"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    import json

    return json.dumps(value)


def loads(data: bytes) -> object:
    """Return what a JSON text in UTF-8 stands for. Raises ValueError for anything else."""
    text = data.decode("utf-8").strip(_BLANKS)
    try:
        # Its stub says that it wants another scanner; it wants anything with these names.
        value, end = _make_scanner(_Rules())(text, 0)  # type: ignore[arg-type]
    except StopIteration:
        raise ValueError("no JSON value") from None
    if end != len(text):
        raise ValueError("more than one JSON value")
    found: object = value
    return found
