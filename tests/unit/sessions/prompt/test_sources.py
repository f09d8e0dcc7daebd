from __future__ import annotations

import os
import pwd
import socket
import sys
from pathlib import Path

import pytest

from iapeer.sessions.prompt import sources
from iapeer.sessions.prompt.sources import (
    FILE_MAX_BYTES,
    NAMES_MAX,
    TOTAL_MAX_BYTES,
    LayerFile,
    LayerFiles,
    has_doctrine,
    host_facts,
    os_release_version,
)


class World:
    """A root, a peer's folder, and what was told of them."""

    def __init__(self, base: Path) -> None:
        self.root = base / "root"
        self.cwd = base / "peer"
        self.own = self.cwd / ".iapeer"
        self.told: list[str] = []
        for folder in (self.root, self.own):
            (folder / "fragments").mkdir(parents=True)

    def files(self) -> LayerFiles:
        return LayerFiles(self.root, self.cwd, self.told.append)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def put(path: Path, text: str = "x") -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# --- files --------------------------------------------------------------------------------------


def test_doctrine_is_the_hosts_then_the_peers(world: World) -> None:
    put(world.root / "IAPEER.md", "host")
    put(world.own / "IAPEER.md", "peer")
    assert list(world.files().doctrine()) == [
        LayerFile(world.root / "IAPEER.md", "host"),
        LayerFile(world.own / "IAPEER.md", "peer"),
    ]


def test_names_are_sorted_by_codepoint_and_pairs_stay_together(world: World) -> None:
    for name in ("b.md", "a.md", "B.md", "é.md"):
        put(world.root / name)
    for name in ("a.md", "c.MD"):
        put(world.own / name)
    found = [file.path for file in world.files().domains()]
    assert found == [
        world.root / "B.md",
        world.root / "a.md",
        world.own / "a.md",
        world.root / "b.md",
        world.own / "c.MD",
        world.root / "é.md",
    ]


def test_what_is_no_domain_is_not_taken(world: World) -> None:
    for name in ("iapeer.md", "IAPEER.MD", "notes.txt", "x.md.bak", "md"):
        put(world.root / name)
    (world.root / "folder.md").mkdir()
    put(world.root / "folder.md" / "deep.md")
    put(world.own / "fragments" / "index.md")
    assert list(world.files().domains()) == []
    assert world.told == []


def test_fragments_are_the_markdown_files_of_their_folders(world: World) -> None:
    put(world.root / "fragments" / "m.md", "host")
    put(world.own / "fragments" / "m.md", "peer")
    put(world.own / "fragments" / "notes.txt")
    put(world.own / "fragments" / "IAPEER.md", "also")
    assert [file.text for file in world.files().fragments()] == ["also", "host", "peer"]


def test_missing_folders_and_files_are_absent_without_a_word(tmp_path: Path) -> None:
    told: list[str] = []
    put(tmp_path / "fragments", "a file")
    files = LayerFiles(tmp_path, tmp_path / "nowhere", told.append)
    (tmp_path / "gone.md").symlink_to(tmp_path / "nothing")
    assert [*files.doctrine(), *files.domains(), *files.fragments()] == []
    assert told == []


def test_a_file_that_goes_after_it_was_listed_is_absent(world: World) -> None:
    put(world.root / "a.md")
    second = put(world.root / "b.md")
    domains = world.files().domains()
    assert next(domains).path.name == "a.md"
    second.unlink()
    assert list(domains) == []
    assert world.told == []


def test_a_file_that_cant_be_read_is_absent_and_told(world: World) -> None:
    loop = world.root / "loop.md"
    loop.symlink_to(loop)
    put(world.root / "zoo.md")
    assert [file.path.name for file in world.files().domains()] == ["zoo.md"]
    assert len(world.told) == 1
    assert str(loop) in world.told[0]


@pytest.mark.timeout(20)
def test_a_fifo_is_left_out_and_does_not_block(world: World) -> None:
    os.mkfifo(world.root / "pipe.md")
    assert list(world.files().domains()) == []
    assert world.told == [f"{world.root / 'pipe.md'} is left out: it is no regular file"]


def test_a_file_above_the_limit_is_left_out_and_told(world: World) -> None:
    put(world.root / "a.md", "x" * FILE_MAX_BYTES)
    put(world.root / "b.md", "x" * (FILE_MAX_BYTES + 1))
    assert [file.path.name for file in world.files().domains()] == ["a.md"]
    assert world.told == [f"{world.root / 'b.md'} is left out: it has more than 1048576 bytes"]


def test_files_that_are_too_much_together_are_left_out_and_told(world: World) -> None:
    for number in range(5):
        put(world.root / f"{number}.md", "x" * FILE_MAX_BYTES)
    put(world.root / "fragments" / "last.md", "x")
    files = world.files()
    assert len(list(files.domains())) == TOTAL_MAX_BYTES // FILE_MAX_BYTES
    assert list(files.fragments()) == []
    assert [message.split()[0] for message in world.told] == [
        str(world.root / "4.md"),
        str(world.root / "fragments" / "last.md"),
    ]


def test_a_folder_with_too_many_files_gives_its_first_ones(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert NAMES_MAX == 500
    monkeypatch.setattr(sources, "NAMES_MAX", 2)
    for number in range(3):
        put(world.root / f"{number}.md")
    assert [file.path.name for file in world.files().domains()] == ["0.md", "1.md"]
    assert world.told == [f"{world.root} has 3 files, the first 2 are used"]


def test_bytes_that_are_no_utf8_are_marked_and_line_ends_stay(world: World) -> None:
    (world.root / "a.md").write_bytes(b"\xef\xbb\xbfa\xff\r\nb\rc\n")
    assert [file.text for file in world.files().domains()] == ["\ufeffa\ufffd\r\nb\rc\n"]


@pytest.mark.parametrize("link", [False, True])
def test_the_peer_of_the_home_folder_is_not_told_its_files_twice(
    tmp_path: Path, link: bool
) -> None:
    root = tmp_path / ".iapeer"
    root.mkdir()
    put(root / "IAPEER.md", "doctrine")
    cwd = tmp_path
    if link:
        cwd = tmp_path / "link"
        cwd.symlink_to(tmp_path)
    files = LayerFiles(root, cwd, pytest.fail)
    assert [file.text for file in files.doctrine()] == ["doctrine"]


@pytest.mark.parametrize(("name", "expected"), [("IAPEER.md", True), ("OTHER.md", False)])
def test_a_doctrine_counts_when_it_exists(world: World, name: str, expected: bool) -> None:
    put(world.own / name, "")
    assert has_doctrine(world.cwd, world.told.append) is expected


def test_a_doctrine_nobody_can_look_for_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    assert not has_doctrine(tmp_path / ("x" * 300), told.append)
    assert len(told) == 1


# --- host ---------------------------------------------------------------------------------------


def test_the_facts_of_this_host() -> None:
    found = host_facts({"USER": "ann"})
    assert found.platform == sys.platform
    assert found.user == "ann"
    assert found.hostname == socket.gethostname().split(".")[0]
    assert found.os_version


@pytest.mark.parametrize("environ", [{}, {"USER": ""}])
def test_without_a_variable_the_user_is_the_accounts(environ: dict[str, str]) -> None:
    assert host_facts(environ).user == pwd.getpwuid(os.geteuid()).pw_name


def test_an_account_without_a_name_and_a_host_without_one_are_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nobody(_uid: int) -> object:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setattr(socket, "gethostname", lambda: ".local")
    found = host_facts({})
    assert (found.user, found.hostname) == ("unknown", "unknown")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('NAME="Debian"\nVERSION_ID="12"\n', "12"),
        ("VERSION_ID=3.20.1\n", "3.20.1"),
        ("VERSION_ID='24.04'\nVERSION_ID_LIKE=1\n", "24.04"),
        ("NAME=Arch\nBUILD_ID=rolling\n", "unknown"),
        ("VERSION_ID=\n", "unknown"),
        ('VERSION_ID="12\n', "unknown"),
        ("", "unknown"),
    ],
)
def test_the_version_is_read_as_os_release_defines_it(
    tmp_path: Path, text: str, expected: str
) -> None:
    assert os_release_version(put(tmp_path / "os-release", text)) == expected


def test_no_os_release_no_version(tmp_path: Path) -> None:
    assert os_release_version(tmp_path / "absent") == "unknown"
