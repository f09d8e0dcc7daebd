"""The catalog: shipped runtimes, the user's own, and bad files that hurt only themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from iapeer.core.errors import RuntimeUnknown
from iapeer.runtimes.catalog import Catalog


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def minimal(runtime: str, program: str = "x") -> str:
    return f'id = "{runtime}"\n[launch]\nargv = ["{program}"]\n'


def test_the_shipped_runtimes_are_there_without_any_folder(tmp_path: Path) -> None:
    catalog = Catalog.load(tmp_path / "none")
    assert {"api", "demo"} <= set(catalog.ids())
    assert catalog.problems == ()
    assert catalog.get("demo").proves_seen
    assert catalog.get("api").kind == "service"


def test_both_places_of_the_user_are_read_and_win(tmp_path: Path) -> None:
    write(tmp_path / "one.toml", minimal("one"))
    write(tmp_path / "two" / "runtime.toml", minimal("two"))
    write(tmp_path / "demo.toml", minimal("demo", "mine"))
    (tmp_path / "empty").mkdir()
    catalog = Catalog.load(tmp_path)
    assert {"one", "two", "demo"} <= set(catalog.ids())
    assert "empty" not in catalog.ids()
    assert catalog.get("demo").launch.argv == ("mine",)


def test_a_bad_manifest_takes_away_only_its_own_runtime(tmp_path: Path) -> None:
    write(tmp_path / "demo.toml", "id = 3")
    write(tmp_path / "other.toml", minimal("another"))
    write(tmp_path / "good.toml", minimal("good"))
    catalog = Catalog.load(tmp_path)
    assert [problem.runtime for problem in catalog.problems] == ["demo", "other"]
    assert {"api", "good"} <= set(catalog.ids())
    with pytest.raises(RuntimeUnknown, match=r"'demo' is not available: .*demo\.toml: id"):
        catalog.get("demo")
    with pytest.raises(RuntimeUnknown, match="does not match the file's name"):
        catalog.get("other")


def test_two_manifests_of_one_runtime_are_a_problem_and_no_guess(tmp_path: Path) -> None:
    write(tmp_path / "one.toml", minimal("one"))
    write(tmp_path / "one" / "runtime.toml", minimal("one"))
    catalog = Catalog.load(tmp_path)
    assert "one" not in catalog.ids()
    assert "both describe" in catalog.problems[0].message


def test_an_unknown_runtime_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(RuntimeUnknown, match=r"'nope' \(known runtimes: api, .*demo"):
        Catalog.load(tmp_path).get("nope")
