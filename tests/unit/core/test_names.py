from __future__ import annotations

import re
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iapeer.core.names import (
    NAME_MAX,
    NAME_PATTERN,
    RUNTIME_PATTERN,
    is_valid_name,
    is_valid_runtime,
    normalize_name,
)


@pytest.mark.requirement(
    "names:normalize:scripts",
    "names:normalize:number-sign",
    "names:normalize:length",
)
@pytest.mark.parametrize(
    ("text", "name", "valid"),
    [
        ("Café №2", "cafe-no-2", True),
        ("项目", "xiang-mu", True),
        ("My Project", "my-project", True),
        ("Нова", "nova", True),
        ("Наталья", "natalya", True),
        ("東京", "dong-jing", True),
        ("北京", "bei-jing", True),
        ("Ω", "o", True),
        ("Köln", "koln", True),
        ("naïve", "naive", True),
        ("Straße", "strasse", True),
        ("  a   b  ", "a-b", True),
        ("a___b...c", "a-b-c", True),
        ("--lead-and-trail--", "lead-and-trail", True),
        ("a" * 40, "a" * 32, True),
        ("a" * 31 + "-bbb", "a" * 31, True),
        ("notifier-timer", "notifier-timer", True),
        ("", "", False),
        ("---", "", False),
        ("😀", "", False),
        ("①②③", "", False),
        ("2nd", "2nd", False),
        ("42", "42", False),
    ],
)
def test_names_of_the_contract_normalise_as_listed(text: str, name: str, valid: bool) -> None:
    assert normalize_name(text) == name
    assert is_valid_name(name) is valid


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("日本go", "ri-ben-go"),
        ("go日本", "go-ri-ben"),
        ("O'Brien", "o-brien"),
        ("O’Brien", "o-brien"),
        ("a😀b", "a-b"),
        ("a½b", "a-b"),
        ("Ко\u0308ln", "koln"),
        ("Ko\u0308ln", "koln"),
        ("a\ud800b", "a-b"),
        ("a\u200bb", "a-b"),
        ("a—b", "a-b"),
        ("ＦＵＬＬ", "full"),
    ],
)
def test_other_scripts_symbols_and_broken_text_only_separate(text: str, name: str) -> None:
    assert normalize_name(text) == name


@pytest.mark.parametrize(("text", "name"), [("Андрей", "andrey"), ("が", "ga"), ("한", "han")])
def test_a_folder_name_stored_decomposed_gives_the_same_name(text: str, name: str) -> None:
    assert normalize_name(unicodedata.normalize("NFD", text)) == normalize_name(text) == name


@pytest.mark.requirement("names:normalize:length", "names:normalize:idempotent")
@given(st.text() | st.text(alphabet=st.characters(codec=None, categories=["L", "M", "N", "C"])))
def test_normalising_is_idempotent_and_short(text: str) -> None:
    name = normalize_name(text)
    assert normalize_name(name) == name
    assert len(name) <= NAME_MAX
    assert re.fullmatch(r"([a-z0-9]+(-[a-z0-9]+)*)?", name)


@pytest.mark.requirement("names:normalize:idempotent")
@given(st.from_regex(r"[a-z](-?[a-z0-9]){0,15}", fullmatch=True))
def test_clean_names_are_fixed_points(name: str) -> None:
    assert is_valid_name(name)
    assert normalize_name(name) == name


@pytest.mark.requirement("names:normalize:not-mended", "names:pattern:personality")
@pytest.mark.parametrize("text", ["a\n", "A", "", "1a", "-a", "a_b", "a b", "a" * 33, "ä", None, 7])
def test_what_is_no_name_is_refused(text: object) -> None:
    assert not is_valid_name(text)


@pytest.mark.requirement("names:pattern:runtime")
@pytest.mark.parametrize("text", ["a\n", "a-b", "", "1a", "A", "a" * 33, None])
def test_what_is_no_runtime_is_refused(text: object) -> None:
    assert not is_valid_runtime(text)


@pytest.mark.requirement("names:pattern:personality", "names:pattern:runtime")
def test_patterns_and_checks_agree_on_the_limits() -> None:
    assert is_valid_name("a" + "-" * 31)
    assert is_valid_runtime("c2" + "a" * 30)
    for pattern in (NAME_PATTERN, RUNTIME_PATTERN):
        assert pattern.startswith("^")
        assert pattern.endswith("$")
        assert re.fullmatch(pattern, "a" * NAME_MAX)
        assert not re.fullmatch(pattern, "a" * (NAME_MAX + 1))


def test_ascii_names_do_not_load_the_transliteration_tables() -> None:
    code = (
        "import sys; from iapeer.core.names import normalize_name; "
        "assert normalize_name('My Project') == 'my-project'; sys.exit('anyascii' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode == 0
