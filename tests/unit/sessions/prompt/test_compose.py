from __future__ import annotations

import stat
from datetime import date
from pathlib import Path

import msgspec
import pytest

from iapeer.core.errors import StorageError
from iapeer.core.identity import Identity, Intelligence
from iapeer.core.profile import RegistryRecord
from iapeer.registry.admin import lifecycle_files
from iapeer.sessions.prompt.compose import (
    PromptContext,
    compose,
    system_prompt_path,
    write_system_prompt,
)
from iapeer.sessions.prompt.sources import HostFacts
from iapeer.storage.paths import Paths

BOB = Identity("claude", "bob")


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    (tmp_path / "root").mkdir(mode=0o700)
    return Paths(tmp_path / "root")


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    (tmp_path / "bob" / ".iapeer").mkdir(parents=True)
    (tmp_path / "bob" / ".iapeer" / "IAPEER.md").write_text("Be kind.\n", encoding="utf-8")
    return tmp_path / "bob"


def context(cwd: Path, *, description: str = "", one_task: bool = False) -> PromptContext:
    record = RegistryRecord(
        personality="bob",
        default_runtime="claude",
        runtimes=("claude",),
        description=description,
        intelligence=Intelligence.ARTIFICIAL,
        cwd="/from/registry",
    )
    return PromptContext(
        cwd=cwd,
        home=cwd.parent,
        records=(record,),
        host=HostFacts("linux", "12", "ann", "box"),
        today=date(2026, 7, 14),
        one_task=one_task,
    )


def test_the_prompt_is_a_private_file_of_the_identity(paths: Paths, cwd: Path) -> None:
    path = write_system_prompt(paths, BOB, context(cwd), pytest.fail)
    assert path == paths.root / "state" / "lifecycle" / "claude-bob.system-prompt.md"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert path.read_text(encoding="utf-8") == compose("bob", paths, context(cwd), pytest.fail)
    assert "<!-- ~/bob/.iapeer/IAPEER.md -->\nBe kind.\n" in path.read_text(encoding="utf-8")


def test_each_bring_up_composes_anew(paths: Paths, cwd: Path) -> None:
    path = write_system_prompt(paths, BOB, context(cwd), pytest.fail)
    assert path is not None
    (cwd / ".iapeer" / "IAPEER.md").write_text("Be quick.\n", encoding="utf-8")
    assert write_system_prompt(paths, BOB, context(cwd), pytest.fail) == path
    text = path.read_text(encoding="utf-8")
    assert "Be quick." in text
    assert "Be kind." not in text


def test_a_bare_start_leaves_no_earlier_prompt_behind(paths: Paths, cwd: Path) -> None:
    assert write_system_prompt(paths, BOB, context(cwd), pytest.fail) is not None
    (cwd / ".iapeer" / "IAPEER.md").unlink()
    for _ in range(2):
        assert write_system_prompt(paths, BOB, context(cwd), pytest.fail) is None
        assert not system_prompt_path(paths, BOB).exists()


def test_a_bare_start_in_a_new_root_makes_nothing(paths: Paths, tmp_path: Path) -> None:
    assert write_system_prompt(paths, BOB, context(tmp_path), pytest.fail) is None
    assert list(paths.root.iterdir()) == []


def test_the_prompt_belongs_to_what_goes_with_the_peer(paths: Paths, cwd: Path) -> None:
    path = write_system_prompt(paths, BOB, context(cwd), pytest.fail)
    assert lifecycle_files(paths, "bob") == (path,)


def test_a_place_that_cant_be_written_is_an_error(paths: Paths, cwd: Path) -> None:
    paths.state.parent.mkdir()
    paths.lifecycle_state.write_text("a file", encoding="utf-8")
    with pytest.raises(StorageError, match="is not a folder"):
        write_system_prompt(paths, BOB, context(cwd), pytest.fail)


def test_what_is_left_out_is_told_and_the_prompt_made(paths: Paths, cwd: Path) -> None:
    told: list[str] = []
    (paths.root / "big.md").write_bytes(b"x" * (1024 * 1024 + 1))
    text = compose("bob", paths, context(cwd), told.append)
    assert text is not None
    assert "Be kind." in text
    assert [message.split()[0] for message in told] == [str(paths.root / "big.md")]


def test_description_and_folder_are_the_registrys(paths: Paths, cwd: Path) -> None:
    text = compose("bob", paths, context(cwd, description="Knows\nit"), pytest.fail)
    assert text is not None
    assert text.split("\n")[1:4] == [
        'personality: "bob"',
        'description: "Knows\\nit"',
        'peer-cwd: "/from/registry"',
    ]
    assert "- bob — Knows it\n" in text


def test_a_peer_that_left_the_registry_is_still_told_who_it_is(paths: Paths, cwd: Path) -> None:
    alone = context(cwd)
    alone = PromptContext(
        cwd=alone.cwd, home=alone.home, records=(), host=alone.host, today=alone.today
    )
    text = compose("bob", paths, alone, pytest.fail)
    assert text is not None
    assert f'description: ""\npeer-cwd: "{cwd}"\n' in text
    assert "## Known peers" not in text


def test_a_worker_for_one_task_is_told_so(paths: Paths, cwd: Path) -> None:
    usual = compose("bob", paths, context(cwd), pytest.fail)
    worker = compose("bob", paths, context(cwd, one_task=True), pytest.fail)
    assert usual is not None
    assert worker is not None
    assert "self-done" not in usual
    assert "`iapeer self-done`" in worker


def test_text_nobody_can_encode_does_not_stop_a_start(paths: Paths, cwd: Path) -> None:
    odd = context(cwd, description="\udcff\x00\x7f")
    record = msgspec.structs.replace(odd.records[0], cwd="/p/\udcff")
    odd = PromptContext(cwd=cwd, home=odd.home, records=(record,), host=odd.host, today=odd.today)
    path = write_system_prompt(paths, BOB, odd, pytest.fail)
    assert path is not None
    assert '"/p/\\udcff"' in path.read_text(encoding="utf-8")
