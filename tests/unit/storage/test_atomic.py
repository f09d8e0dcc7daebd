from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from iapeer.core.errors import StorageError
from iapeer.storage import atomic
from iapeer.storage.atomic import ensure_private_dir, remove_file, write_bytes, write_text

SOURCE = Path(atomic.__file__).parents[1]
NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop to another uid")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def run_child(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh interpreter that can import this tree."""
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE.parent)}
    return subprocess.run(
        [sys.executable, "-c", code, *args],
        env=environ,
        capture_output=True,
        encoding="utf-8",
        timeout=30,
        check=False,
    )


@pytest.fixture
def wide_umask() -> Iterator[None]:
    old = os.umask(0)
    yield
    os.umask(old)


@pytest.mark.requirement("storage:private", "storage:atomic")
@pytest.mark.usefixtures("wide_umask")
def test_a_written_file_has_its_content_mode_0600_and_leaves_no_temporary(tmp_path: Path) -> None:
    write_text(tmp_path / "a.json", "grün\n")
    assert (tmp_path / "a.json").read_bytes() == "grün\n".encode()
    assert mode_of(tmp_path / "a.json") == 0o600
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_given_mode_is_set_on_a_file_that_had_another(tmp_path: Path) -> None:
    path = tmp_path / "run.sh"
    write_bytes(path, b"one", 0o600)
    write_bytes(path, b"two", 0o755)
    assert (path.read_bytes(), mode_of(path)) == (b"two", 0o755)


@pytest.mark.requirement("storage:links")
def test_mode_none_keeps_the_mode_that_is_there(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    write_bytes(path, b"one", 0o640)
    write_bytes(path, b"two", None)
    assert (path.read_bytes(), mode_of(path)) == (b"two", 0o640)
    write_bytes(tmp_path / "new.toml", b"x", None)
    assert mode_of(tmp_path / "new.toml") == 0o600


@pytest.mark.requirement("storage:links")
@needs_root
def test_mode_none_keeps_the_owner_that_is_there(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"one")
    os.chown(path, NOBODY, NOBODY)
    write_bytes(path, b"two", None)
    assert (path.stat().st_uid, path.stat().st_gid) == (NOBODY, NOBODY)


@pytest.mark.requirement("storage:links")
@pytest.mark.parametrize("existing", [True, False])
def test_a_symbolic_link_stays_and_its_target_is_replaced(tmp_path: Path, existing: bool) -> None:
    (tmp_path / "real").mkdir()
    target = tmp_path / "real" / "config"
    if existing:
        target.write_text("old", encoding="utf-8")
    link = tmp_path / "link"
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text(encoding="utf-8") == "new"
    assert os.listdir(tmp_path / "real") == ["config"]


def test_a_link_that_points_at_itself_is_refused(tmp_path: Path) -> None:
    link = tmp_path / "loop"
    link.symlink_to(link)
    with pytest.raises(StorageError, match="loop") as caught:
        write_text(link, "x")
    assert "symbolic link" in caught.value.hint
    assert link.is_symlink()


@pytest.mark.requirement("registry:write:single-writer")
def test_the_registry_file_is_refused_directly_and_behind_a_link(tmp_path: Path) -> None:
    registry = tmp_path / "peers-profiles.json"
    registry.write_text("precious", encoding="utf-8")
    (tmp_path / "innocent").symlink_to(registry)
    for path in (registry, tmp_path / "innocent"):
        with pytest.raises(StorageError, match="its own writer"):
            write_text(path, "x")
    assert registry.read_text(encoding="utf-8") == "precious"


@pytest.mark.requirement("registry:write:single-writer")
def test_only_the_registry_calls_the_unguarded_writer() -> None:
    users = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if "replace_unguarded" in path.read_text("utf-8")
    }
    assert users == {"storage/atomic.py", "registry/index.py"}


def test_a_missing_folder_is_an_error_with_path_and_hint(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no-such") as caught:
        write_text(tmp_path / "no-such" / "file", "x")
    assert "missing" in caught.value.hint


@pytest.mark.requirement("storage:atomic")
def test_a_write_that_fails_half_way_keeps_the_old_file_and_removes_the_temporary(
    tmp_path: Path,
) -> None:
    path = tmp_path / "data"
    path.write_text("old", encoding="utf-8")
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from iapeer.core.errors import StorageError\n"
        "from iapeer.storage.atomic import write_bytes\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "try: write_bytes(Path(sys.argv[1]), b'x' * 100_000)\n"
        "except StorageError as error: print(error)\n"
    )
    child = run_child(code, str(path))
    assert str(path) in child.stdout
    assert "ulimit" in child.stdout
    assert path.read_text(encoding="utf-8") == "old"
    assert os.listdir(tmp_path) == ["data"]


@needs_root
def test_a_folder_without_write_permission_is_an_error_with_path_and_hint() -> None:
    # Not below tmp_path: nobody else may enter pytest's own folders.
    folder = Path(tempfile.mkdtemp(prefix="iap", dir="/tmp"))
    folder.chmod(0o755)
    code = (
        "import os, sys; from pathlib import Path\n"
        "from iapeer.core.errors import StorageError\n"
        "from iapeer.storage.atomic import write_bytes\n"
        f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "try: write_bytes(Path(sys.argv[1]), b'x')\n"
        "except StorageError as error: print(error)\n"
    )
    child = run_child(code, str(folder / "file"))
    assert str(folder / "file") in child.stdout, child.stderr
    assert "check owner and mode" in child.stdout
    folder.rmdir()  # fails when something was left in it


@pytest.mark.requirement("storage:durable")
def test_content_is_on_the_disk_before_the_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    def spy(owner: object, name: str) -> None:
        real = getattr(owner, name)

        def call(*args: object) -> object:
            steps.append(name)
            return real(*args)

        monkeypatch.setattr(owner, name, call)

    for owner, name in ((os, "fchmod"), (os, "replace"), (atomic, "sync"), (atomic, "sync_dir")):
        spy(owner, name)
    write_text(tmp_path / "a", "x")
    assert steps == ["fchmod", "sync", "replace", "sync_dir"]


def test_remove_file_tells_whether_there_was_one(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "x")
    assert remove_file(tmp_path / "a") is True
    assert remove_file(tmp_path / "a") is False


@pytest.mark.requirement("storage:private")
@pytest.mark.usefixtures("wide_umask")
def test_a_private_folder_is_made_with_all_its_parents_0700(tmp_path: Path) -> None:
    ensure_private_dir(tmp_path / "a" / "b" / "c")
    for folder in ("a", "a/b", "a/b/c"):
        assert mode_of(tmp_path / folder) == 0o700
    ensure_private_dir(tmp_path / "a" / "b" / "c")


def test_a_folder_that_others_may_read_is_closed(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o755)
    ensure_private_dir(folder)
    assert mode_of(folder) == 0o700


@pytest.mark.requirement("storage:foreign-folder")
@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_folder_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(StorageError, match="may be written by others") as caught:
        ensure_private_dir(folder)
    assert str(folder) in caught.value.message
    assert mode_of(folder) == mode


@pytest.mark.requirement("storage:foreign-folder")
@needs_root
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "foreign"
    folder.mkdir(mode=0o700)
    os.chown(folder, NOBODY, NOBODY)
    with pytest.raises(StorageError, match=f"belongs to uid {NOBODY}"):
        ensure_private_dir(folder)


def test_a_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(StorageError, match="is not a folder"):
        ensure_private_dir(tmp_path / "file")
    with pytest.raises(StorageError, match="file"):
        ensure_private_dir(tmp_path / "file" / "below")


def test_a_full_disk_is_named_as_such(tmp_path: Path) -> None:
    error = atomic.storage_error(OSError(28, "No space left on device"), tmp_path / "x", "write")
    assert str(tmp_path / "x") in error.message
    assert "free space" in error.hint
