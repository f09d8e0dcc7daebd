"""Manifests: the smallest one, each default, and errors that say where and what."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from iapeer.core.errors import ManifestError
from iapeer.runtimes import manifest
from iapeer.runtimes.manifest import lookup, parse_manifest
from iapeer.runtimes.spec import File, Record

README = Path(manifest.__file__).parent / "manifests" / "README.md"
MINIMAL = 'id = "mytool"\n[launch]\nargv = ["mytool"]\n'


def blocks_of_the_readme() -> list[str]:
    return re.findall(r"```toml\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def refused(text: str) -> str:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(text, "mytool.toml")
    assert caught.value.message.startswith("mytool.toml")
    return str(caught.value)


@pytest.mark.requirement("launch:manifest")
def test_three_lines_make_any_program_a_runtime() -> None:
    spec = parse_manifest(MINIMAL, "mytool.toml")
    assert spec.title == "mytool"
    assert (spec.kind, spec.intelligence, spec.doors) == ("tui", "artificial", ("paste",))
    assert (spec.queue, spec.window) == ("volatile", 1)
    assert not spec.proves_seen
    assert not spec.can_resume
    assert spec.launch.strip_env == ("CLAUDE", "CODEX")
    assert spec.submit.key == "Enter"


@pytest.mark.parametrize(
    ("kind", "doors"), [("tui", ("paste",)), ("router", ("pane",)), ("service", ("inbox",))]
)
def test_the_kind_chooses_the_door(kind: str, doors: tuple[str, ...]) -> None:
    argv = "" if kind == "service" else '[launch]\nargv = ["x"]\n'
    spec = parse_manifest(f'id = "x"\nkind = "{kind}"\n{argv}', "x.toml")
    assert spec.doors == doors
    assert spec.proves_seen is (kind == "service")


def test_every_example_of_the_readme_is_a_manifest() -> None:
    blocks = blocks_of_the_readme()
    assert len(blocks) == 3
    for block in blocks:
        parse_manifest(block, "README.md")


def test_the_readme_shows_every_key_there_is() -> None:
    shown = tomllib.loads(blocks_of_the_readme()[-1])
    full = parse_manifest(blocks_of_the_readme()[-1], "README.md")
    assert set(shown) == set(full.__struct_fields__)
    for name in ("launch", "screen", "submit", "control", "evidence", "errors", "tested"):
        assert set(shown[name]) == set(getattr(full, name).__struct_fields__), name
    assert set(shown["screen"]["dialogs"][0]) == {"match", "keys", "when"}
    assert set().union(*shown["evidence"]["records"]) == set(Record.__struct_fields__)
    assert set(shown["launch"]["files"][0]) == set(File.__struct_fields__)


@pytest.mark.requirement("launch:manifest")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id = = 3", ("not valid TOML", "line 1")),
        ('[launch]\nargv = ["a"]', ("missing required field `id`", "known keys: id, title")),
        (MINIMAL + "speed = 3", ("launch", "unknown field `speed`", "resume_argv")),
        ('kind = "gui"\n' + MINIMAL, ("kind", "'gui'", "allowed: router, service, tui")),
        ('window = "2"\n' + MINIMAL, ("window", "give a whole number")),
        ("window = 0\n" + MINIMAL, ("window", "1 or more")),
        ('id = "My-Tool"\n[launch]\nargv = ["a"]', ("id", "My-Tool")),
        ('id = "x"', ("launch.argv", "missing")),
        ('id = "x"\n[launch]\nargv = ["a", 1]', ("launch.argv[1]", "give a string")),
        ('id = "x"\n[launch]\nargv = ["a", "{nope}"]', ("launch.argv[1]", "known: cwd")),
        ('id = "x"\n[launch]\nargv = ["a", "{"]', ("launch.argv[1]", "lone '{'")),
        ('id = "x"\n[launch]\nargv = ["--key={token}"]', ("launch.argv[0]", "refused")),
        ('id = "x"\n[launch]\nargv = ["a", "{message}"]', ("launch.argv[1]", "refused")),
        ('id = "x"\nkind = "service"\n[launch]\nargv = ["a"]', ("launch.argv", "not started")),
        (MINIMAL + "[launch.env]\nPEER_TOKEN = 'x'", ("launch.env.PEER_TOKEN", "iapeer itself")),
        (MINIMAL + "[launch.env]\n'a b' = 'x'", ("launch.env.a b", "variable")),
        (MINIMAL + "boot_deadline_s = 0", ("launch.boot_deadline_s",)),
        (MINIMAL + 'strip_env = [""]', ("launch.strip_env",)),
        (MINIMAL + '[screen]\nready = ["("]', ("screen.ready[0]", "regular expression")),
        (MINIMAL + '[screen]\nbusy = [""]', ("screen.busy[0]", "always match")),
        (MINIMAL + '[screen]\nprompt_glyphs = [" "]', ("screen.prompt_glyphs[0]",)),
        (MINIMAL + '[screen]\nghost_sgr = ["m"]', ("screen.ghost_sgr[0]",)),
        (
            MINIMAL + '[[screen.dialogs]]\nmatch = "x"\nkeys = ["Enter; kill-server"]',
            ("screen.dialogs[0].keys", "tmux key"),
        ),
        (MINIMAL + "[[screen.dialogs]]\nkeyz = 1", ("screen.dialogs[0]", "match, keys, when")),
        (MINIMAL + '[submit]\nkey = "-X"', ("submit.key",)),
        (MINIMAL + '[submit]\nerase_keys = ["C-e", "-X"]', ("submit.erase_keys[1]",)),
        (MINIMAL + "[submit]\nsettle_ms = -1", ("submit.settle_ms",)),
        (MINIMAL + '[control]\ncompact = "a\\nb"', ("control.compact", "one line")),
        (MINIMAL + '[evidence]\ntranscript = "/t"', ("evidence", "need each other")),
        (
            MINIMAL + '[evidence]\ntranscript = "{transcript}"\n'
            '[[evidence.records]]\nmatch = {a = 1}\nkind = "turn_start"',
            ("evidence.transcript", "transcript"),
        ),
        (
            MINIMAL + '[evidence]\ntranscript = "/t"\n'
            '[[evidence.records]]\nmatch = {a = 1}\nkind = "user"',
            ("evidence.records[0].text",),
        ),
        (
            MINIMAL + '[evidence]\ntranscript = "/t"\n'
            '[[evidence.records]]\nmatch = {}\nkind = "turn_end"',
            ("evidence.records[0].match", "every line"),
        ),
        (
            MINIMAL + '[evidence]\ntranscript = "/t"\n'
            '[[evidence.records]]\nmatch = {a = 1}\nkind = "turn_end"\nbegins = true',
            ("evidence.records[0].begins", "user input"),
        ),
    ],
)
def test_an_error_names_the_file_the_key_and_what_is_allowed(
    text: str, words: tuple[str, ...]
) -> None:
    said = refused(text)
    for word in words:
        assert word in said


def test_nested_and_quoted_dotted_matches_mean_the_same() -> None:
    head = MINIMAL + '[evidence]\ntranscript = "/t"\n[[evidence.records]]\n'
    tail = '\nkind = "user"\ntext = "message.content"'
    nested = parse_manifest(head + 'match = { message.role = "user" }' + tail, "a")
    quoted = parse_manifest(head + 'match = { "message.role" = "user" }' + tail, "a")
    assert nested == quoted


def test_a_record_matches_by_value_and_type() -> None:
    record = Record(match={"a.b": 1, "c": True}, kind="turn_start")
    assert record.matches({"a": {"b": 1}, "c": True, "d": 0})
    assert not record.matches({"a": {"b": 1}, "c": 1})
    assert not record.matches({"a": {"b": True}, "c": True})
    assert not record.matches({"a": 1, "c": True})
    assert lookup({"a": [1]}, "a.b") is None


def test_an_unreadable_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    bad = tmp_path / "x.toml"
    bad.write_bytes(b'id = "\xff"')
    for path in (bad, tmp_path / "none.toml"):
        with pytest.raises(ManifestError, match=re.escape(str(path))):
            manifest.load_manifest(path)
