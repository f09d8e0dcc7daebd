"""Says what a struct allows at a key: the second half of a good message about a bad file."""

from __future__ import annotations

import re

import msgspec
from msgspec import inspect

_INDEX = re.compile(r"\[[^\]]*\]")


def allowed_at(struct: type[msgspec.Struct], key: str) -> str:
    """Return what may stand at a dotted key (`screen.dialogs[0].keys`), empty if nothing is known.

    For a table the known keys, for an enumeration its values, else the kind of value.
    """
    found: inspect.Type = inspect.type_info(struct)
    for step in key.split(".") if key else ():
        name, indexes = _INDEX.sub("", step), len(_INDEX.findall(step))
        found = _not_none(found)
        if not isinstance(found, inspect.StructType):
            return ""
        field = next((f for f in found.fields if f.encode_name == name), None)
        if field is None:
            return ""
        found = field.type
        for _ in range(indexes):
            found = _inside(found)
    return _describe(_not_none(found))


def _inside(kind: inspect.Type) -> inspect.Type:
    if isinstance(kind, inspect.VarTupleType | inspect.ListType):
        return kind.item_type
    if isinstance(kind, inspect.DictType):
        return kind.value_type
    return kind


def _not_none(kind: inspect.Type) -> inspect.Type:
    if isinstance(kind, inspect.UnionType):
        others = [one for one in kind.types if not isinstance(one, inspect.NoneType)]
        return others[0] if len(others) == 1 else kind
    return kind


def _describe(kind: inspect.Type) -> str:
    if isinstance(kind, inspect.StructType):
        return f"known keys: {', '.join(field.encode_name for field in kind.fields)}"
    if isinstance(kind, inspect.LiteralType):
        return f"allowed: {', '.join(str(value) for value in kind.values if value)}"
    if isinstance(kind, inspect.VarTupleType | inspect.ListType):
        inner = _describe(kind.item_type)
        return f"give a list; of each element: {inner}" if inner else "give a list"
    if isinstance(kind, inspect.UnionType):
        return "give " + " or ".join(_plain(one) for one in kind.types)
    return f"give {_plain(kind)}"


def _plain(kind: inspect.Type) -> str:
    words: dict[type[inspect.Type], str] = {
        inspect.StrType: "a string",
        inspect.IntType: "a whole number",
        inspect.FloatType: "a number",
        inspect.BoolType: "true or false",
        inspect.DictType: "a table",
    }
    return words.get(type(kind), "another value")
