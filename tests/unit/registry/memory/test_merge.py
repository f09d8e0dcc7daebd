from __future__ import annotations

import json
import threading
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from iapeer.core.errors import StorageError
from iapeer.registry.memory import merge as merging
from iapeer.registry.memory.merge import Merge, Put, backup_path, merge

from .conftest import Write

OFF = Put(("a", "b"), value=False)


def test_a_new_file_is_private_and_what_was_made_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x" / "y" / "s.json"
    done = merge(Merge(path=path, put=(OFF,)))
    assert done.changed
    assert done.made == (tmp_path / "x", tmp_path / "x" / "y", path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert json.loads(path.read_bytes()) == {"a": {"b": False}}


def test_the_second_time_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    merge(Merge(path=path, put=(OFF,)))
    before = path.stat()
    assert merge(Merge(path=path, put=(OFF,))).changed is False
    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_json_keeps_foreign_keys_their_order_indentation_mode_and_end(
    tmp_path: Path, write: Write
) -> None:
    path = write(tmp_path / "s.json", '{\n    "z": [1.5, "é"],\n    "a": {"c": null}\n}')
    merge(Merge(path=path, put=(OFF,)))
    text = path.read_text(encoding="utf-8")
    assert text.startswith('{\n    "z"')
    assert not text.endswith("\n")
    assert json.loads(text) == {"z": [1.5, "é"], "a": {"c": None, "b": False}}
    assert path.stat().st_mode & 0o777 == 0o640


def test_toml_keeps_comments_and_everything_else(tmp_path: Path, write: Write) -> None:
    before = '# mine\nmodel = "x" # why\n\n[a]\nz = 1\n\n[q.r]\ns = """t\n"""\n'
    path = write(tmp_path / "s.toml", before)
    merge(Merge(path=path, put=(OFF,)))
    assert path.read_text(encoding="utf-8") == before.replace("z = 1\n", "z = 1\nb = false\n")
    merge(Merge(path=path, drop=(OFF.keys,)))
    assert path.read_text(encoding="utf-8") == before


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("s.json", "[]"),
        ("s.json", "{"),
        ("s.json", ""),
        ("s.json", '{"a": 3}'),
        ("s.json", '{"x": 1e999}'),
        ("s.toml", "a = 3"),
        ("s.toml", "a ="),
        ("s.toml", "[[a]]\nb = 1\n"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_refused_and_untouched(
    tmp_path: Path, write: Write, name: str, text: str
) -> None:
    path = write(tmp_path / name, text)
    with pytest.raises(StorageError, match=r"s\.(json|toml)"):
        merge(Merge(path=path, put=(OFF,), is_shared=True))
    assert path.read_text(encoding="utf-8") == text
    assert list(tmp_path.iterdir()) == [path]


def test_true_is_not_one(tmp_path: Path, write: Write) -> None:
    path = write(tmp_path / "s.json", '{"a": {"b": 0}}')
    assert merge(Merge(path=path, put=(OFF,))).changed
    assert json.loads(path.read_bytes())["a"]["b"] is False


def test_a_link_stays_a_link(tmp_path: Path, write: Write) -> None:
    target = write(tmp_path / "real" / "t.toml", "")
    link = tmp_path / "s.toml"
    link.symlink_to(target)
    merge(Merge(path=link, put=(OFF,)))
    assert link.is_symlink()
    assert tomllib.loads(target.read_text(encoding="utf-8")) == {"a": {"b": False}}


def test_the_file_as_it_was_is_kept_once(tmp_path: Path, write: Write) -> None:
    path = write(tmp_path / "s.toml", "x = 1\n")
    first = merge(Merge(path=path, put=(OFF,), is_shared=True))
    second = merge(Merge(path=path, drop=(OFF.keys,), is_shared=True))
    assert first.backup == backup_path(path)
    assert second.backup is None
    assert backup_path(path).read_text(encoding="utf-8") == "x = 1\n"
    assert backup_path(path).stat().st_mode & 0o777 == 0o600


def test_dropping_removes_the_tables_it_empties_and_no_others(tmp_path: Path, write: Write) -> None:
    path = write(tmp_path / "s.json", '{"a": {"b": false}, "c": {}, "d": {"e": {"f": 1}, "g": 2}}')
    merge(Merge(path=path, drop=(("a", "b"), ("d", "e", "f"), ("no", "such"))))
    assert json.loads(path.read_bytes()) == {"c": {}, "d": {"g": 2}}


@pytest.mark.parametrize("name", ["s.json", "s.toml"])
def test_a_file_of_ours_goes_with_its_last_key_and_another_stays(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    for is_ours in (True, False):
        merge(Merge(path=path, put=(OFF,)))
        merge(Merge(path=path, drop=(OFF.keys,), is_ours=is_ours))
        assert path.exists() is not is_ours
    assert merge(Merge(path=tmp_path / "no" / "s.json", drop=(OFF.keys,))).changed is False
    assert not (tmp_path / "no").exists()


def test_comments_about_what_follows_stay_when_a_table_goes(tmp_path: Path, write: Write) -> None:
    before = "x = 1\n\n[p.a]\n# of a\nt = 1\n\n# about b\n[p.b]\nt = 2\n"
    path = write(tmp_path / "s.toml", before)
    merge(Merge(path=path, drop=(("p", "a"),)))
    assert path.read_text(encoding="utf-8") == "x = 1\n\n# about b\n[p.b]\nt = 2\n"


def test_a_table_with_a_comment_stays_when_its_last_key_goes(tmp_path: Path, write: Write) -> None:
    path = write(tmp_path / "s.toml", "[a] # mine\nb = false\n")
    merge(Merge(path=path, drop=(OFF.keys,), is_ours=True))
    assert path.read_text(encoding="utf-8") == "[a] # mine\n"


@pytest.mark.parametrize(
    "text",
    [
        "p = { a = { t = 1 }, b = 2 }\n",
        "[p]\na.t = 1\nb = 2\n",
        '[p.a]\nt = """\n[x]\n"""\n[p]\nb = 2\n',
        "[p.a]\nt = 1\n[p.a.u]\nv = 1\n[p]\nb = 2\n",
        "[p]\nb = 2\n[p.'a']\nt = [\n[1],\n]\n",
    ],
)
def test_a_table_goes_however_it_is_written(tmp_path: Path, write: Write, text: str) -> None:
    path = write(tmp_path / "s.toml", text)
    merge(Merge(path=path, drop=(("p", "a"),)))
    assert tomllib.loads(path.read_text(encoding="utf-8")) == {"p": {"b": 2}}


def test_an_inline_table_is_added_to(tmp_path: Path, write: Write) -> None:
    path = write(tmp_path / "s.toml", "a = { c = 1 }\nprojects = {}\n")
    put = (OFF, Put(("projects", "/x y", "trust_level"), "trusted"))
    merge(Merge(path=path, put=put))
    assert tomllib.loads(path.read_text(encoding="utf-8")) == {
        "a": {"c": 1, "b": False},
        "projects": {"/x y": {"trust_level": "trusted"}},
    }


def test_a_change_of_another_program_in_between_is_not_lost(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "s.json", "{}")
    real, reads = merging.read_bytes, 0

    def read(where: Path) -> bytes | None:
        nonlocal reads
        reads += 1
        if reads == 2:
            path.write_text('{"theirs": 1}', encoding="utf-8")
        return real(where)

    monkeypatch.setattr(merging, "read_bytes", read)
    merge(Merge(path=path, put=(OFF,)))
    assert json.loads(path.read_bytes()) == {"theirs": 1, "a": {"b": False}}


def test_parallel_changes_are_all_there(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    threads = [
        threading.Thread(target=merge, args=(Merge(path=path, put=(Put(("p", str(n)), "x"),)),))
        for n in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tomllib.loads(path.read_text(encoding="utf-8")) == {
        "p": {str(n): "x" for n in range(12)}
    }


def test_text_that_would_lose_something_is_never_written(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "s.toml", "x = 1\n")
    monkeypatch.setattr(tomlkit, "dumps", lambda _document: "[a]\nb = false\n")
    with pytest.raises(StorageError, match="without touching other keys"):
        merge(Merge(path=path, put=(OFF,)))
    assert path.read_text(encoding="utf-8") == "x = 1\n"


_values = st.recursive(
    st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=4), _values, max_size=4), st.sampled_from("jt"))
def test_whatever_is_in_the_file_survives(
    tmp_path_factory: pytest.TempPathFactory, document: dict[str, Any], kind: str
) -> None:
    document = {key: value for key, value in document.items() if key != "a"}
    folder = tmp_path_factory.mktemp("m")
    path = folder / ("s.json" if kind == "j" else "s.toml")
    dump = json.dumps(document) if kind == "j" else tomlkit.dumps(document)
    path.write_bytes(dump.encode())
    load = json.loads if kind == "j" else tomllib.loads
    before = load(dump)
    merge(Merge(path=path, put=(OFF,)))
    assert load(path.read_text(encoding="utf-8")) == {**before, "a": {"b": False}}
    merge(Merge(path=path, drop=(OFF.keys,)))
    assert load(path.read_text(encoding="utf-8")) == before
