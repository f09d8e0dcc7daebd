from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iapeer.client import quickjson

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES)
def test_a_value_is_written_as_the_standard_library_writes_it(value: object) -> None:
    assert quickjson.dumps(value) == json.dumps(value)


@given(VALUES, st.booleans(), st.sampled_from([None, 2]))
def test_a_text_is_read_as_the_standard_library_reads_it(
    value: object, ascii_only: bool, indent: int | None
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assert quickjson.loads(f" {text}\n".encode("utf-8", "surrogatepass")) == json.loads(text)


@given(st.binary(max_size=30) | st.text(alphabet='{}[]",:0123eE+-. \\untrfalsi').map(str.encode))
def test_what_is_no_json_is_refused_where_the_standard_library_refuses_it(data: bytes) -> None:
    try:
        wanted = json.loads(data.decode("utf-8"))
    except ValueError:
        with pytest.raises(ValueError):  # noqa: PT011 - which of its kinds does not matter
            quickjson.loads(data)
    else:
        found = quickjson.loads(data)
        same_nan = isinstance(found, float) and math.isnan(found) and math.isnan(wanted)
        assert same_nan or found == wanted


def test_tuples_are_lists_and_other_keys_are_as_in_the_standard_library() -> None:
    value = {"a": ("b", 1.5), "c": {1: None}}
    assert json.loads(quickjson.dumps(value)) == {"a": ["b", 1.5], "c": {"1": None}}


def test_what_has_no_json_is_an_error() -> None:
    with pytest.raises(TypeError):
        quickjson.dumps({"a": object()})
