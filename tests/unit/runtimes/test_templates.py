"""Placeholders: what is filled in is never read again as a template."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iapeer.core.errors import ManifestError
from iapeer.runtimes.manifest import PLACEHOLDERS, expand
from iapeer.runtimes.templates import NEVER, placeholders

ANY = st.text(max_size=30)


@given(ANY, ANY, st.lists(st.sampled_from(sorted(PLACEHOLDERS)), max_size=3))
def test_literal_text_survives_doubling_and_values_stay_as_they_are(
    text: str, value: str, names: list[str]
) -> None:
    literal = text.replace("{", "{{").replace("}", "}}")
    template = literal + "".join(f"{{{name}}}{literal}" for name in names)
    values = dict.fromkeys(PLACEHOLDERS, value)
    assert expand([template], values) == [text + "".join(value + text for _ in names)]


def test_one_template_stays_one_argument() -> None:
    assert expand(["{cwd}", "-x"], {"cwd": "/a b; rm {python}"}) == ["/a b; rm {python}", "-x"]


@pytest.mark.parametrize("name", sorted(NEVER))
def test_secrets_and_bodies_have_no_placeholder(name: str) -> None:
    with pytest.raises(ManifestError, match="refused"):
        placeholders(f"--{{{name}}}")


def test_a_placeholder_without_a_value_is_an_error_and_never_empty() -> None:
    with pytest.raises(ManifestError, match=r"no value here for \{mcp_url\}"):
        expand(["{mcp_url}"], {"cwd": "/"})


def test_a_word_with_an_empty_condition_goes() -> None:
    values = {"cwd": "/p", "system_prompt": ""}
    assert expand(("a", "{?system_prompt}--file", "{?system_prompt}{cwd}"), values) == ["a"]
    values["system_prompt"] = "/f"
    assert expand(("{?system_prompt}--file", "{?system_prompt}{system_prompt}"), values) == [
        "--file",
        "/f",
    ]


@pytest.mark.parametrize("template", ["{?nope}x", "{?cwd", "x{?cwd}y", "{?token}x"])
def test_a_condition_stands_first_and_is_known(template: str) -> None:
    with pytest.raises(ManifestError):
        placeholders(template)
