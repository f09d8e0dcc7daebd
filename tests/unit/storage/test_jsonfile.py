from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iapeer.core.errors import StorageError
from iapeer.storage.jsonfile import INVALID, MISSING, dump_json, parse_json, read_json

SOMEWHERE = Path("/somewhere/file.json")

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # Lone surrogates are legal in JSON escapes, so they are among the texts.
    | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def test_a_dump_has_two_spaces_the_given_order_and_a_final_newline() -> None:
    assert (
        dump_json({"b": "grün", "a": [1]})
        == '{\n  "b": "grün",\n  "a": [\n    1\n  ]\n}\n'.encode()
    )


@given(json_values)
def test_reading_and_dumping_again_gives_the_same_bytes(value: object) -> None:
    data = dump_json(value)
    assert dump_json(parse_json(data, SOMEWHERE)) == data


def test_a_lone_surrogate_survives(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'"\\ud800"')
    assert read_json(path) == "\ud800"
    assert dump_json("\ud800") == b'"\\ud800"\n'


def test_a_missing_file_is_told_apart_from_a_broken_one(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"none\.json does not exist") as caught:
        read_json(tmp_path / "none.json")
    assert caught.value.code == MISSING


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"\xff\xfe", b"NaN", b"[Infinity]", b"{} {}", b"[" * 100_000],
    ids=["empty", "cut", "no utf-8", "nan", "infinity", "two values", "too deep"],
)
def test_what_is_no_json_is_an_error_that_names_the_file(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(data)
    with pytest.raises(StorageError, match=r"bad\.json is not valid JSON") as caught:
        read_json(path)
    assert caught.value.code == INVALID


def test_a_file_that_can_not_be_read_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=str(tmp_path)) as caught:
        read_json(tmp_path)
    assert caught.value.code == "storage"


def test_nan_is_never_written() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        dump_json(float("nan"))
