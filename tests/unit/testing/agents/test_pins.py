from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from iapeer.core.errors import ConfigError, InvalidInput
from iapeer.testing.agents import load_pins, locate, pin_of, pins
from iapeer.testing.agents.errors import NotForThisMachine, NotInstalled
from iapeer.testing.agents.pins import Pin, Program, package_json, package_lock, platform_key, stamp

ALL = [(name, key) for name, pin in load_pins().items() for key in pin.platforms]
GOOD_HASH = "sha512-" + "a" * 86 + "=="


def pin(**changes: str) -> Pin:
    values = {"package": "@a/b", "program": "bin/c", "integrity": GOOD_HASH, **changes}
    return Pin(command="c", version="1.2.3", platforms={"any": Program(**values)})


@pytest.mark.parametrize(("name", "key"), ALL)
def test_npm_is_given_one_version_with_a_sha512_and_no_address(name: str, key: str) -> None:
    found = load_pins()[name]
    program = found.platforms[key]
    wanted = json.loads(package_json(found, program))
    lock = json.loads(package_lock(found, program))
    assert set(lock["packages"]) == {"", f"node_modules/{program.package}"}
    locked = lock["packages"][f"node_modules/{program.package}"]
    assert set(locked) == {"version", "integrity"}
    assert re.fullmatch(r"sha512-[A-Za-z0-9+/]{86}==", locked["integrity"])
    assert wanted["dependencies"] == {program.package: locked["version"]}
    assert wanted["dependencies"] == lock["packages"][""]["dependencies"]
    assert locked["version"].startswith(found.version)


def test_no_file_of_ours_says_where_packages_come_from() -> None:
    for path in pins.PINS.parent.iterdir():
        if path.is_file():
            assert not re.search(r"https://|registry\.", path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize("name", ["claude", "codex"])
@pytest.mark.parametrize("key", ["linux-x64", "linux-arm64", "darwin-x64", "darwin-arm64"])
def test_the_gates_agents_are_pinned_for_linux_and_macos(name: str, key: str) -> None:
    program = pin_of(name).here(key)
    cpu = {"x64": ("x64", "x86_64"), "arm64": ("arm64", "aarch64")}[key.partition("-")[2]]
    named = f"{program.package} {program.release} {program.program}"
    assert any(word in named for word in cpu)
    assert key.partition("-")[0] in named


@pytest.mark.parametrize(
    ("system", "machine", "libc", "key"),
    [
        ("linux", "x86_64", "glibc", "linux-x64"),
        ("linux", "AMD64", "", "linux-x64-musl"),
        ("linux", "aarch64", "glibc", "linux-arm64"),
        ("linux", "riscv64", "glibc", "linux-riscv64"),
        ("darwin", "arm64", "", "darwin-arm64"),
    ],
)
def test_this_machine_is_named_as_npm_names_it(
    system: str, machine: str, libc: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr("platform.libc_ver", lambda: (libc, ""))
    assert platform_key() == key


def test_a_platform_without_a_pin_is_refused_with_those_that_have_one() -> None:
    with pytest.raises(NotForThisMachine, match=r"not pinned for linux-riscv64 .*linux-x64"):
        pin_of("claude").here("linux-riscv64")


def test_an_unknown_agent_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidInput, match=r"'clade' .*claude, codex"):
        pin_of("clade")


@pytest.mark.parametrize(
    "changes",
    [{"integrity": "sha1-abc="}, {"integrity": "sha512-short"}, {"program": "/bin/sh"}]
    + [{"program": path} for path in ("../../../bin/sh", "a/../../b")],
)
def test_a_weak_hash_or_a_path_outside_the_package_is_no_pin(
    changes: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="@a/b: "):
        pin(**changes)
    values = {"package": "@a/b", "program": "c", "integrity": GOOD_HASH, **changes}
    lines = [f'{key} = "{value}"' for key, value in values.items()]
    path = tmp_path / "pins.toml"
    head = '[x]\ncommand = "c"\nversion = "1"\n[x.platforms.any]\n'
    path.write_text(head + "\n".join(lines), encoding="utf-8")
    monkeypatch.setattr(pins, "PINS", path)
    with pytest.raises(ConfigError, match=r"pins\.toml: @a/b: "):
        load_pins.__wrapped__()


def test_whatever_is_installed_differently_has_another_stamp() -> None:
    made = [
        pin(),
        pin(package="@a/d"),
        pin(program="bin/d"),
        pin(release="1.2.3-x"),
        pin(integrity=GOOD_HASH.replace("aa", "bb")),
        Pin(command="d", version="1.2.3", platforms=pin().platforms),
        Pin(command="c", version="1.2.4", platforms=pin().platforms),
    ]
    assert len({stamp(each, each.here()) for each in made}) == len(made)
    assert stamp(made[0], made[0].here()) == stamp(pin(), pin().here())


def test_a_program_named_in_the_environment_is_used_instead(tmp_path: Path) -> None:
    program = tmp_path / "claude-nightly"
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    environ = {"IAPEER_TEST_AGENT_CLAUDE": str(program)}
    with pytest.raises(NotInstalled, match=r"IAPEER_TEST_AGENT_CLAUDE names .* no program"):
        locate("claude", tmp_path, environ=environ)
    program.chmod(0o755)
    assert locate("claude", tmp_path, environ=environ) == program
    with pytest.raises(NotInstalled, match="agents install codex"):
        locate("codex", tmp_path, environ=environ)
