from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iapeer.core.errors import InvalidInput, ProfileError, RegistryError
from iapeer.core.identity import Intelligence
from iapeer.core.profile import (
    DESCRIPTION_MAX,
    Issue,
    Profile,
    ProfileChange,
    RegistryRecord,
    drift,
    project,
    validate_profile,
)

UID = "0123456789abcdef" * 2
PLAIN: dict[str, object] = {
    "personality": "bob",
    "default_runtime": "claude",
    "runtime": "claude",
    "runtimes": ["claude", "codex"],
    "description": "builds",
    "intelligence": "artificial",
}
RECORD: dict[str, object] = PLAIN | {"cwd": "/home/bob"}


def read(**changes: object) -> Profile:
    return Profile.from_json(PLAIN | changes, "p.json")


def without(raw: dict[str, object], *keys: str) -> dict[str, object]:
    return {key: value for key, value in raw.items() if key not in keys}


# --- profile: reading ----------------------------------------------------------------------------


@pytest.mark.requirement("profile:read:keys")
def test_every_key_is_read() -> None:
    raw = PLAIN | {
        "description": "  builds ",
        "intelligence": "human",
        "initial_prompt": "start",
        "interfaces": {"telegram": {"bot": "b"}},
        "wake_policy": "ephemeral",
        "uid": UID,
        "notifier": {"x": 1},
    }
    assert Profile.from_json(raw, "p.json") == Profile(
        personality="bob",
        default_runtime="claude",
        runtimes=("claude", "codex"),
        description="builds",
        intelligence=Intelligence.NATURAL,
        raw_intelligence="human",
        initial_prompt="start",
        interfaces={"telegram": {"bot": "b"}},
        wake_policy="ephemeral",
        uid=UID,
        extra={"notifier": {"x": 1}},
        order=tuple(raw),
    )


@pytest.mark.requirement("profile:read:keys")
def test_the_least_profile_gets_the_defaults_of_its_runtime() -> None:
    profile = Profile.from_json({"personality": "bob", "runtime": "telegram"}, "p.json")
    assert profile.default_runtime == "telegram"
    assert profile.runtimes == ("telegram",)
    assert profile.intelligence is Intelligence.NATURAL
    assert (profile.description, profile.initial_prompt, profile.uid) == ("", "", "")
    assert profile.interfaces is None


@pytest.mark.requirement("profile:read:legacy-runtime", "profile:write:runtimes")
def test_default_runtime_wins_over_its_legacy_mirror_and_comes_first() -> None:
    profile = read(
        default_runtime="codex", runtime="claude", runtimes=["claude", "codex", "claude"]
    )
    assert profile.default_runtime == "codex"
    assert profile.runtimes == ("codex", "claude")
    assert profile.to_json()["runtime"] == "codex"


@pytest.mark.requirement("profile:read:errors")
@pytest.mark.parametrize(
    ("raw", "keyword"),
    [
        ([], "not an object"),
        (None, "not an object"),
        (without(PLAIN, "personality"), "missing personality"),
        (PLAIN | {"personality": "  "}, "missing personality"),
        (PLAIN | {"personality": 7}, "missing personality"),
        (PLAIN | {"personality": "../x"}, "invalid personality"),
        (without(PLAIN, "runtime", "default_runtime"), "invalid runtime"),
        (PLAIN | {"default_runtime": "a-b"}, "invalid runtime"),
        (PLAIN | {"default_runtime": 7}, "invalid runtime"),
        (PLAIN | {"runtimes": ["claude", "A"]}, "invalid runtime"),
        (PLAIN | {"runtimes": "claude"}, "runtimes is not a list"),
        (PLAIN | {"interfaces": []}, "interfaces is not an object"),
        (PLAIN | {"intelligence": "robot"}, "unknown intelligence"),
        (PLAIN | {"intelligence": ["natural"]}, "unknown intelligence"),
        (PLAIN | {"uid": "../../x"}, "invalid uid"),
        (PLAIN | {"uid": UID + "\n"}, "invalid uid"),
    ],
)
def test_a_profile_that_can_not_be_read_says_which_and_why(raw: object, keyword: str) -> None:
    with pytest.raises(ProfileError, match=keyword) as caught:
        Profile.from_json(raw, "/home/bob/p.json")
    assert caught.value.message.startswith("/home/bob/p.json: ")


@pytest.mark.requirement("profile:read:wake-policy")
@pytest.mark.parametrize("policy", ["always", 7, None, ["ephemeral"], ""])
def test_another_wake_policy_is_ignored_and_kept(policy: object) -> None:
    profile = read(wake_policy=policy)
    assert profile.wake_policy == ""
    assert profile.to_json() == PLAIN | {"wake_policy": policy}


# --- profile: writing ----------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
foreign = st.dictionaries(
    st.text(max_size=6).filter(lambda key: key not in {*RECORD, "interfaces", "uid"}), json_values
)
known: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "personality": st.just("bob"),
        "default_runtime": st.just("claude"),
        "runtime": st.just("claude"),
        "runtimes": st.just(["claude", "codex"]),
    },
    optional={
        "description": st.sampled_from(["", "d", None, 7]),
        "intelligence": st.sampled_from(["human", "scripted", "natural", "artificial", "", None]),
        "initial_prompt": st.sampled_from(["", "go", None, []]),
        "interfaces": st.sampled_from([None, {}, {"telegram": {"bot": 1}}]),
        "wake_policy": st.sampled_from(["ephemeral", "other", None]),
        "uid": st.sampled_from([UID, "", None]),
    },
)


@pytest.mark.requirement("profile:write:merge")
@given(known, foreign, st.randoms(use_true_random=False))
def test_writing_what_was_read_changes_no_key_no_value_and_no_order(
    mine: dict[str, Any], theirs: dict[str, Any], random: Any
) -> None:
    pairs = [*mine.items(), *theirs.items()]
    random.shuffle(pairs)
    raw = dict(pairs)
    before = json.dumps(raw)
    assert json.dumps(Profile.from_json(raw, "p").to_json()) == before
    assert json.dumps(raw) == before


@pytest.mark.requirement("profile:write:merge")
@given(known, foreign)
def test_a_change_keeps_every_foreign_key(mine: dict[str, Any], theirs: dict[str, Any]) -> None:
    change = ProfileChange(
        default_runtime="codex", description="new", intelligence="absent", initial_prompt="go"
    )
    written = Profile.from_json(mine | theirs, "p").merged(change).to_json()
    assert {key: written[key] for key in theirs} == theirs
    assert written["runtime"] == written["default_runtime"] == "codex"
    assert written["runtimes"] == ["codex", "claude"]
    assert written["description"] == "new"
    assert Profile.from_json(written, "p").intelligence is Intelligence.ABSENT


@pytest.mark.requirement("profile:write:empty-keeps")
def test_an_empty_change_changes_nothing() -> None:
    profile = read(initial_prompt="start", intelligence="human", extra_key=1)
    assert profile.merged(ProfileChange()) == profile
    assert profile.merged(ProfileChange(description="  ", initial_prompt=" ")) == profile


@pytest.mark.requirement("profile:write:runtimes")
def test_runtimes_of_a_change_are_added_and_leave_the_default() -> None:
    profile = read().merged(ProfileChange(runtimes=("telegram", "codex")))
    assert profile.default_runtime == "claude"
    assert profile.runtimes == ("claude", "codex", "telegram")


@pytest.mark.requirement("names:intelligence:verbatim", "profile:write:nature")
def test_a_legacy_word_stays_until_the_nature_really_changes() -> None:
    profile = read(intelligence="human")
    assert profile.with_intelligence("natural").to_json()["intelligence"] == "human"
    assert profile.with_intelligence("absent").to_json()["intelligence"] == "absent"
    with pytest.raises(InvalidInput, match=r"artificial\|natural\|absent"):
        profile.merged(ProfileChange(intelligence="robot"))


@pytest.mark.requirement("profile:write:mirror")
def test_a_legacy_file_gains_both_runtime_keys_and_no_others() -> None:
    raw: dict[str, object] = {"personality": "bob", "runtime": "codex", "x": 1}
    assert Profile.from_json(raw, "p").to_json() == raw | {
        "default_runtime": "codex",
        "runtimes": ["codex"],
    }


@pytest.mark.requirement("profile:write:nature")
def test_a_nature_stated_for_the_first_time_is_written() -> None:
    profile = Profile.from_json(without(PLAIN, "intelligence"), "p")
    assert "intelligence" not in profile.to_json()
    assert profile.with_intelligence("artificial").to_json()["intelligence"] == "artificial"


@pytest.mark.requirement("profile:write:mirror")
def test_a_newborn_profile_writes_the_shape_of_the_contract() -> None:
    profile = Profile(
        personality="bob",
        default_runtime="claude",
        runtimes=("claude",),
        intelligence=Intelligence.ARTIFICIAL,
        uid=UID,
    )
    assert json.dumps(profile.to_json()) == json.dumps(
        {
            "personality": "bob",
            "default_runtime": "claude",
            "runtime": "claude",
            "runtimes": ["claude"],
            "intelligence": "artificial",
            "uid": UID,
        }
    )


# --- record --------------------------------------------------------------------------------------


def test_a_record_is_read_and_written_as_it_was() -> None:
    raw = {"zeta": [1]} | RECORD | {"intelligence": "human", "interfaces": {"a": 1}, "uid": UID}
    record = RegistryRecord.from_json(raw)
    assert record.intelligence is Intelligence.NATURAL
    assert record.cwd == "/home/bob"
    assert record.extra == {"zeta": [1]}
    assert json.dumps(record.to_json()) == json.dumps(raw)


def test_a_new_record_is_written_in_the_order_of_the_contract() -> None:
    record = project(read(), "/home/bob")
    assert list(record.to_json()) == [*PLAIN, "cwd"]
    assert not {"raw_intelligence", "extra", "order"} & set(record.to_json())


@pytest.mark.parametrize(
    "raw",
    [
        "x",
        RECORD | {"personality": "Bad"},
        RECORD | {"personality": None},
        RECORD | {"default_runtime": "a-b"},
        RECORD | {"runtimes": [""]},
        RECORD | {"cwd": " "},
        without(RECORD, "cwd"),
        RECORD | {"cwd": 7},
        RECORD | {"intelligence": "robot"},
        RECORD | {"interfaces": "x"},
    ],
)
def test_a_corrupted_record_is_refused_by_keyword(raw: object) -> None:
    with pytest.raises(RegistryError, match=r"^peers-profiles\.json corrupted: peer"):
        RegistryRecord.from_json(raw)


@pytest.mark.requirement("registry:description:limit")
def test_descriptions_are_clamped_in_the_index_only() -> None:
    fits, long = "d" * DESCRIPTION_MAX, "d" * (DESCRIPTION_MAX + 1)
    assert RegistryRecord.from_json(RECORD | {"description": fits}).description == fits
    assert RegistryRecord.from_json(RECORD | {"description": long}).description == fits
    assert read(description=long).description == long
    assert project(read(description=long), "/x").description == fits


@pytest.mark.requirement("registry:view:public")
def test_the_public_view_holds_five_keys_and_no_place() -> None:
    record = RegistryRecord.from_json(
        RECORD | {"intelligence": "human", "interfaces": {"a": 1}, "uid": UID, "secret": 1}
    )
    assert record.public_view() == {
        "personality": "bob",
        "runtime": "claude",
        "runtimes": ["claude", "codex"],
        "description": "builds",
        "intelligence": "natural",
    }


def test_a_record_keeps_its_legacy_word_while_the_nature_is_reasserted() -> None:
    record = RegistryRecord.from_json(RECORD | {"intelligence": "scripted"})
    assert record.with_intelligence("absent").to_json()["intelligence"] == "scripted"
    assert record.with_intelligence("natural").to_json()["intelligence"] == "natural"
    assert record.with_intelligence("human").to_json()["intelligence"] == "human"
    with pytest.raises(InvalidInput, match=r"artificial\|natural\|absent"):
        record.with_intelligence("garbage")


# --- projection and drift ------------------------------------------------------------------------


def test_a_projection_replaces_and_keeps_only_what_a_profile_can_not_know() -> None:
    previous = RegistryRecord.from_json(
        RECORD | {"intelligence": "human", "runtimes": ["claude", "codex"], "theirs": 1}
    )
    profile = read(intelligence="natural", runtimes=["claude"], uid=UID)
    record = project(profile, "/new", previous)
    assert record.to_json() == RECORD | {
        "cwd": "/new",
        "runtimes": ["claude"],
        "intelligence": "human",
        "uid": UID,
        "theirs": 1,
    }
    assert drift(record, profile) == ()
    changed = project(read(intelligence="absent"), "/new", previous)
    assert changed.to_json()["intelligence"] == "absent"


@pytest.mark.requirement("registry:verify:drift")
@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({}, ()),
        ({"description": "other", "runtimes": ["claude"]}, ("runtimes", "description")),
        ({"default_runtime": "codex"}, ("default_runtime", "runtimes")),
        ({"runtimes": ["claude", "telegram", "codex"]}, ("runtimes",)),
        ({"intelligence": "natural"}, ("intelligence",)),
        ({"personality": "rob"}, ("personality",)),
        ({"interfaces": {"a": 1}, "uid": UID, "initial_prompt": "x"}, ()),
    ],
)
def test_drift_names_the_fields_that_differ(
    changes: dict[str, object], fields: tuple[str, ...]
) -> None:
    assert drift(RegistryRecord.from_json(RECORD), read(**changes)) == fields


@pytest.mark.requirement("registry:verify:no-false-drift")
def test_descriptions_beyond_the_clamp_and_legacy_words_are_no_drift() -> None:
    record = RegistryRecord.from_json(
        RECORD | {"description": "d" * 450, "intelligence": "natural"}
    )
    assert drift(record, read(description="d" * 500, intelligence="human")) == ()


# --- verify --------------------------------------------------------------------------------------


@pytest.mark.requirement("registry:verify:severity")
@pytest.mark.parametrize("word", ["artificial", "natural", "absent", "human", "scripted"])
def test_a_conformant_profile_has_no_issues(word: str) -> None:
    raw = PLAIN | {
        "intelligence": word,
        "initial_prompt": "go",
        "wake_policy": "ephemeral",
        "interfaces": {"telegram": {"bot": "b"}},
        "uid": UID,
        "notifier": {},
    }
    assert validate_profile(raw, "Bob") == []


@pytest.mark.requirement("registry:verify:severity")
@pytest.mark.parametrize(
    ("raw", "severity", "field"),
    [
        ([], "error", "root"),
        (PLAIN | {"personality": "rob"}, "warning", "personality"),
        (PLAIN | {"personality": "Bad Name"}, "error", "personality"),
        (without(PLAIN, "personality"), "error", "personality"),
        (PLAIN | {"default_runtime": "a-b"}, "error", "default_runtime"),
        (without(PLAIN, "default_runtime"), "warning", "default_runtime"),
        (PLAIN | {"runtime": "codex"}, "warning", "default_runtime"),
        (without(PLAIN, "default_runtime", "runtime"), "error", "default_runtime"),
        (PLAIN | {"runtimes": "claude"}, "error", "runtimes"),
        (PLAIN | {"runtimes": ["claude", "A"]}, "error", "runtimes"),
        (PLAIN | {"runtimes": ["codex"]}, "error", "runtimes"),
        (PLAIN | {"description": 7}, "error", "description"),
        (PLAIN | {"initial_prompt": []}, "error", "initial_prompt"),
        (PLAIN | {"initial_prompt": " !ls"}, "warning", "initial_prompt"),
        (PLAIN | {"initial_prompt": "/clear"}, "warning", "initial_prompt"),
        (PLAIN | {"intelligence": "robot"}, "error", "intelligence"),
        (PLAIN | {"intelligence": {}}, "error", "intelligence"),
        (PLAIN | {"wake_policy": "always"}, "warning", "wake_policy"),
        (PLAIN | {"interfaces": []}, "error", "interfaces"),
        (PLAIN | {"aliases": []}, "warning", "aliases"),
        (
            PLAIN | {"interfaces": {"telegram": {"aliases": []}}},
            "warning",
            "interfaces.telegram.aliases",
        ),
        (PLAIN | {"uid": "x"}, "error", "uid"),
    ],
)
def test_each_fault_is_found_with_its_severity(raw: object, severity: str, field: str) -> None:
    (issue,) = validate_profile(raw, "bob")
    assert (issue.severity, issue.field) == (severity, field)
    assert issue.message


@pytest.mark.requirement("registry:verify:severity")
def test_all_faults_are_listed_at_once() -> None:
    issues = validate_profile({"personality": "rob", "default_runtime": "A", "uid": 1}, "bob")
    assert [issue.field for issue in issues] == ["personality", "default_runtime", "uid"]


@given(
    st.dictionaries(
        st.sampled_from([*PLAIN, "uid", "interfaces", "wake_policy", "initial_prompt"]),
        json_values | st.sampled_from(["claude", "natural", UID, ["claude"]]),
    )
)
def test_what_can_not_be_read_is_never_conformant(raw: dict[str, Any]) -> None:
    issues = validate_profile(raw, "bob")
    assert all(isinstance(issue, Issue) for issue in issues)
    try:
        Profile.from_json(raw, "p")
    except ProfileError:
        assert any(issue.severity == "error" for issue in issues)
