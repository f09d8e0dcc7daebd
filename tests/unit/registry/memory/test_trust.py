from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from iapeer.registry.memory.merge import backup_path
from iapeer.registry.memory.trust import codex_config, forget_sections, trust_folder

from .conftest import Write


def test_the_configuration_is_in_codex_home_else_in_the_home_folder() -> None:
    assert codex_config({"HOME": "/h"}) == Path("/h/.codex/config.toml")
    assert codex_config({"HOME": "/h", "CODEX_HOME": " "}) == Path("/h/.codex/config.toml")
    assert codex_config({"HOME": "/h", "CODEX_HOME": "/c"}) == Path("/c/config.toml")


@pytest.mark.requirement("memory:trust:folder")
def test_a_folder_is_trusted_by_its_real_path(tmp_path: Path) -> None:
    real = tmp_path / "real folder"
    real.mkdir()
    link = tmp_path / "link"
    link.symlink_to(real)
    config = tmp_path / ".codex" / "config.toml"
    done = trust_folder(config, link)
    assert (done.folder, done.refused, done.merged.backup) == (str(real), "", None)
    text = config.read_text(encoding="utf-8")
    assert text.startswith("# Made by iapeer")
    assert text.endswith(f'[projects."{real}"]\ntrust_level = "trusted"\n')
    assert config.stat().st_mode & 0o777 == 0o600
    assert trust_folder(config, real).merged.changed is False


@pytest.mark.requirement("memory:trust:user")
@pytest.mark.parametrize(("level", "refused"), [("trusted", ""), ("untrusted", "untrusted")])
def test_what_the_user_said_of_a_folder_stays(
    tmp_path: Path, write: Write, level: str, refused: str
) -> None:
    text = f'[projects."{tmp_path}"]\ntrust_level = "{level}"\n'
    config = write(tmp_path / "config.toml", text)
    done = trust_folder(config, tmp_path)
    assert (done.merged.changed, done.refused) == (False, refused)
    assert config.read_text(encoding="utf-8") == text


@pytest.mark.requirement("memory:trust:clean")
def test_a_section_is_taken_back_and_the_file_is_as_it_was(tmp_path: Path, write: Write) -> None:
    before = '# mine\nmodel = "x"\n\n[projects."/other"]\ntrust_level = "trusted"\n\n[tui]\na = 1\n'
    config = write(tmp_path / "config.toml", before)
    done = trust_folder(config, tmp_path)
    assert done.merged.backup == backup_path(config)
    assert tomllib.loads(config.read_text(encoding="utf-8"))["tui"] == {"a": 1}
    assert forget_sections(config, [("projects", str(tmp_path))])
    assert config.read_text(encoding="utf-8") == before
    assert config.stat().st_mode & 0o777 == 0o640
    assert forget_sections(config, [("projects", str(tmp_path))]) is False


@pytest.mark.requirement("memory:trust:clean")
def test_a_file_that_we_made_goes_with_its_last_section(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    for name in ("a", "b"):
        trust_folder(config, tmp_path / name)
    assert forget_sections(config, [("projects", str(tmp_path / "a"))])
    assert config.exists()
    assert forget_sections(config, [("projects", str(tmp_path / "b"))])
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_we_made_stays_when_somebody_added_to_it(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    trust_folder(config, tmp_path)
    with config.open("a", encoding="utf-8") as file:
        file.write("# a note\n")
    assert forget_sections(config, [("projects", str(tmp_path))])
    assert "# a note" in config.read_text(encoding="utf-8")


def test_an_empty_file_of_the_user_stays(tmp_path: Path, write: Write) -> None:
    config = write(tmp_path / "config.toml", "")
    trust_folder(config, tmp_path)
    forget_sections(config, [("projects", str(tmp_path))])
    assert config.read_bytes() == b""
