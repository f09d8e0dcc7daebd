"""JSON files in the one shape we write, with errors that name the file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from iapeer.core.errors import StorageError
from iapeer.storage.atomic import storage_error

MISSING = "missing"
"""`code` of the error for a file that is not there."""
INVALID = "invalid_json"
"""`code` of the error for a file that is no UTF-8 JSON."""

_SURROGATE = re.compile("[\ud800-\udfff]")


def read_json(path: Path) -> object:
    """Return the decoded content of a UTF-8 JSON file (RFC 8259: no NaN, no Infinity).

    Raises StorageError that names the file; its `code` is MISSING, INVALID or `storage`.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise StorageError(f"{path} does not exist", code=MISSING) from None
    except OSError as error:
        raise storage_error(error, path, "read") from error
    return parse_json(data, path)


def parse_json(data: bytes, path: Path) -> object:
    """Decode what was read from `path`.

    Raises StorageError with code INVALID.
    """
    try:
        value: object = json.loads(data.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise StorageError(
            f"{path} is not valid JSON: {error}", hint="repair the file or restore it", code=INVALID
        ) from None
    return value


def dump_json(value: Any) -> bytes:
    """Encode for a file: 2 spaces, keys in the given order, UTF-8, newline at the end.

    Byte-stable: reading and dumping the result again gives the same bytes. A lone surrogate,
    which UTF-8 can't hold, stays the escape that it was.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    escaped = _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
    return escaped.encode() + b"\n"


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")
