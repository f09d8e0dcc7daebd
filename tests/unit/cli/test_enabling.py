"""`enable` with scripts in place of the agent programs: no marketplace can be reached here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Run

_PROGRAM = """#!/bin/sh
echo "$(basename "$0") $(pwd) $*" >> "{log}"
case "$*" in
'plugin list --json') cat "{folder}/$(basename "$0").json" 2>/dev/null || echo '[]';;
'plugin install notes@agfpd --scope project')
  printf '[{{"id":"notes@agfpd","enabled":true,"installPath":"%s"}}]' "{folder}" \
    > "{folder}/claude.json";;
'plugin add notes@agfpd')
  printf '{{"installed":[{{"pluginId":"notes@agfpd","enabled":true,"version":"1"}}]}}' \
    > "{folder}/codex.json";;
*) echo refused >&2; exit 1;;
esac
"""


@pytest.fixture
def agents(root: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Scripts `claude` and `codex` that note where and how they are called, in the file given."""
    folder, log = root / "bin", root / "calls"
    folder.mkdir()
    (root / "runtimes").mkdir()
    for name in ("claude", "codex"):
        manifest = f'id = "{name}"\n[launch]\nargv = ["{name}"]\n'
        (root / "runtimes" / f"{name}.toml").write_text(manifest, encoding="utf-8")
        (folder / name).write_text(_PROGRAM.format(log=log, folder=folder), encoding="utf-8")
        (folder / name).chmod(0o700)
    (folder / "set-up").write_text('#!/bin/sh\necho "set up $1" >> "$IAPEER_ROOT/calls"\n', "utf-8")
    (folder / "set-up").chmod(0o700)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return log


@pytest.fixture
def bob(run: Run, root: Path, agents: Path) -> Path:
    """A peer of both programs."""
    cwd = root / "peers" / "bob"
    run("create", "bob", "--runtime", "claude")
    run("init", str(cwd), "--runtime", "codex")
    return cwd


@pytest.mark.requirement("memory:enable:states", "memory:enable:setup")
def test_a_plug_in_is_enabled_on_each_runtime_and_set_up_once(
    run: Run, root: Path, agents: Path, bob: Path
) -> None:
    setup = {"setup": {"command": "set-up", "args": ["now"]}}
    (root / "bin" / "iapeer.json").write_text(json.dumps(setup), encoding="utf-8")
    done = run("enable", "notes", "bob")
    assert (done.status, done.err) == (0, "")
    assert done.out == "claude: installed\ncodex: installed\nsetup: called\n"
    calls = agents.read_text(encoding="utf-8").splitlines()
    assert calls == [
        f"claude {bob} plugin list --json",
        f"claude {bob} plugin install notes@agfpd --scope project",
        f"claude {bob} plugin list --json",
        f"codex {bob} plugin list --json",
        f"codex {bob} plugin add notes@agfpd",
        f"codex {bob} plugin list --json",
        "set up now",
    ]
    done = run("enable", "notes", "--no-setup", "--json", cwd=bob)
    assert done.status == 0
    shown = json.loads(done.out)
    assert (shown["personality"], shown["plugin"]) == ("bob", "notes@agfpd")
    assert [each["state"] for each in shown["runtimes"]] == ["already-enabled"] * 2
    assert shown["setup"] == {"state": "skipped", "detail": ""}


@pytest.mark.requirement("memory:enable:states")
def test_a_failure_ends_with_one_and_skips_the_set_up(run: Run, agents: Path, bob: Path) -> None:
    done = run("enable", "other", "bob")
    assert done.status == 1
    assert done.out == (
        "claude: failed — plugin install other@agfpd --scope project: failed (exit 1): refused\n"
        "codex: failed — plugin add other@agfpd: failed (exit 1): refused\n"
        "setup: skipped\n"
    )


@pytest.mark.requirement("memory:enable:states")
def test_a_missing_program_is_no_failure(run: Run, root: Path, bob: Path) -> None:
    (root / "bin" / "codex").unlink()
    done = run("enable", "notes", "bob")
    assert done.status == 0
    assert "codex: runtime-missing — no program 'codex' on PATH" in done.out


def test_a_peer_without_agents_and_one_without_folder_are_refused(
    run: Run, root: Path, agents: Path, bob: Path
) -> None:
    run("create", "dan", "--runtime", "demo")
    done = run("enable", "notes", "dan")
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("iapeer enable: 'dan' has no runtime with plug-ins\n")
    bob.rename(bob.with_name("moved"))
    assert "does not exist" in run("enable", "notes", "bob").err
    assert not agents.exists()
