"""One record, one line: the logfmt of every log file.

structlog's LogfmtRenderer was considered: it quotes by other rules than the contract's and
costs 106 ms of import, against the 30 lines here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

# C0, DEL, C1, the Unicode line separators, and surrogates (which no UTF-8 file can hold).
_CONTROL = "\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"
_BREAKS_A_PAIR = re.compile(f'[\\s"={_CONTROL}]')
_ESCAPED = re.compile(f'[\\\\"{_CONTROL}]')
_SHORT = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def format_line(pairs: Iterable[tuple[str, object | None]]) -> str:
    r"""Return `key=value` pairs as one line without its newline, in the order given.

    None is skipped, booleans are `true` and `false`. A value is quoted when it is empty or
    contains white space, `"`, `=` or a control character; inside quotes `\` and `"` are
    escaped by a backslash and control characters written as `\n`, `\r`, `\t` or `\u001b`,
    so a record never spans lines and never moves a terminal's cursor. Characters that would
    break a key become `_`.
    """
    return " ".join([f"{_key(key)}={_value(value)}" for key, value in pairs if value is not None])


@lru_cache(maxsize=512)
def _key(key: str) -> str:
    return _BREAKS_A_PAIR.sub("_", key)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    if text and _BREAKS_A_PAIR.search(text) is None:
        return text
    return f'"{_ESCAPED.sub(_escape, text)}"'


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if short := _SHORT.get(character):
        return short
    return f"\\u{ord(character):04x}"
