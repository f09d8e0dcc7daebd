from __future__ import annotations

from pathlib import Path

import pytest

from iapeer.daemon import discovery
from iapeer.daemon.discovery import Discovery

OURS = Discovery(sock="/s/router.sock", tcp="http://127.0.0.1:8765/mcp")


@pytest.mark.requirement("daemon:discovery")
def test_what_was_written_is_read_back_and_removed_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "state" / "router.json"
    assert discovery.read(path) is None
    discovery.write(path, OURS)
    assert path.read_bytes() == (b'{"sock":"/s/router.sock","tcp":"http://127.0.0.1:8765/mcp"}\n')
    assert discovery.read(path) == OURS
    assert not discovery.remove(path, Discovery(sock=None, tcp=None))
    assert path.exists()
    assert discovery.remove(path, OURS)
    assert not path.exists()
    assert not discovery.remove(path, OURS)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"sock":1,"tcp":null}', "\x00"])
def test_a_broken_file_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "router.json"
    path.write_text(text, encoding="utf-8")
    assert discovery.read(path) is None


def test_nulls_are_allowed_and_unknown_keys_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "router.json"
    path.write_text('{"sock":null,"tcp":null,"later":1}', encoding="utf-8")
    assert discovery.read(path) == Discovery(sock=None, tcp=None)
