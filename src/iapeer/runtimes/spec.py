"""What a runtime is, as frozen values: the shape of a manifest with all its defaults.

What a manifest does not say has a default that is true of an unknown line-reading program: it
lives in a terminal (`kind = "tui"`), text is pasted and submitted with Enter (door `paste`),
nothing proves that it was read (so `landed` is final), its queue dies with it (`volatile`), it is
ready as soon as its screen has settled, it is never busy, shows no dialogs and can't resume a
session. Each field says its own default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from iapeer.core.env import FOREIGN_PREFIXES

Kind = Literal["tui", "router", "service"]
Door = Literal["paste", "pane", "inbox", "appserver", "http"]
RecordKind = Literal["user", "enqueue", "dequeue", "turn_start", "turn_end", "compacted", "ignore"]
HookKind = Literal[
    "prompt", "turn_prompt", "session", "turn_end", "turn_failed", "interrupted", "compacted"
]
Config = Literal["shared", "isolated"]
When = Literal["always", "shared", "isolated"]

ANY = "*"
"""As the wanted value of a match: the key must be there, whatever it holds."""


class File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file that is written for the program before each start, 0600."""

    path: str
    """Path template; absolute once expanded, below `{state_dir}` or an isolated `{home}`."""
    content: dict[str, Any]
    """What it holds; every string in it is a template."""
    format: Literal["json", "toml"] = "json"
    when: Literal["always", "isolated"] = "always"
    """`isolated`: only where the program has a configuration home of its own."""
    merge: bool = False
    """Keep the keys that the program itself has written there; ours win."""


class Launch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the program is started; strings may hold placeholders (see `PLACEHOLDERS`).

    A word of an argv, or a value of `env`, that begins with `{?name}` is left out when the value
    of that placeholder is empty.
    """

    argv: tuple[str, ...] = ()
    """Program and arguments, no shell; needed for every kind but `service`."""
    resume_argv: tuple[str, ...] = ()
    """The same to go on with `{session_id}`; empty (default): every start is a fresh session."""
    server_argv: tuple[str, ...] = ()
    """The program's own server, started beside it; needs `endpoint = "unix"`. Default: none."""
    server_takes: tuple[str, ...] = ()
    """Options with one value that, among a peer's own start arguments, are given to the server
    too."""
    endpoint: Literal["", "unix", "http"] = ""
    """What `{endpoint}` stands for: a new socket's path, or the URL of a free port of loopback."""
    files: tuple[File, ...] = ()
    """Written before each start."""
    env: dict[str, str] = {}
    """Variables for the program; `PEER_*` and `IAPEER_*` are ours and refused here."""
    strip_env: tuple[str, ...] = FOREIGN_PREFIXES
    """Prefixes of inherited variables that are removed (default: those of other agent CLIs)."""
    boot_deadline_s: float | None = None
    """Seconds from start to ready; None (default): the host's setting `boot_deadline_s`."""


class Dialog(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A question some versions ask at start, and how a person would answer it."""

    match: str
    """Regular expression searched in the screen's text."""
    keys: tuple[str, ...] = ()
    """tmux key names, sent one per call with a pause between; none: just wait until it is gone."""
    when: When = "always"
    """In which kind of configuration home this is answered for the person."""


class Failure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A screen that only a person can get the program out of, such as a login."""

    match: str
    """Regular expression searched in the screen's text during a boot, which then fails at once."""
    hint: str
    """What the person should do."""
    when: When = "always"


class Screen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the program draws. All expressions are searched in the text of the screen (multi-line).

    Defaults are empty: without a prompt glyph the composer can't be read, so a paste counts as
    landed when the keys were accepted and a person's draft can't be seen; without `ready` the
    program is ready once it has printed something and the screen has settled, or has stayed silent
    for the settle time.
    """

    prompt_glyphs: tuple[str, ...] = ()
    """What the composer's line starts with, e.g. `>`."""
    ghost_sgr: tuple[str, ...] = ("2",)
    """SGR parameters of suggestion text that nobody typed (default: faint)."""
    paste_patterns: tuple[str, ...] = ()
    """Plain strings that stand for a folded paste in the composer, e.g. `[Pasted text`."""
    shortened: tuple[str, ...] = ()
    """Plain strings that begin what stands, up to a `]`, for the middle of a long text that the
    program gives back, e.g. `[...Truncated text`."""
    ready: tuple[str, ...] = ()
    """Expressions that must ALL be found before the first message."""
    not_ready: tuple[str, ...] = ()
    """Expressions of which NONE may be found."""
    busy: tuple[str, ...] = ()
    """Expressions of which ANY means a turn is running."""
    dialogs: tuple[Dialog, ...] = ()
    """Tried in this order; the first whose `match` is found is answered."""
    failures: tuple[Failure, ...] = ()
    """Screens that no key of ours gets past."""


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of line in the program's own JSONL record of a session."""

    match: dict[str, str | bool | int | float]
    """Dotted path to the value it must equal, `*` for any; all must hold."""
    kind: RecordKind
    """What such a line proves. `user`: the model was given this text; `ignore`: nothing."""
    text: str = ""
    """Dotted path to the text (a string, or a list of blocks of which those of type `text` count);
    needed for `user`, `enqueue` and `dequeue`; for `turn_end` the words of the error."""
    status: str = ""
    """Dotted path to how a turn ended; only for `turn_end`."""
    ends: Literal["", "done", "api_error", "interrupted"] = ""
    """How the turn ended, where the kind of record says so by itself; only for `turn_end`."""
    error: str = ""
    """Dotted path to the error's category; only for `turn_end`."""
    begins: bool = False
    """A turn begins with this input: one before it that nothing ended was cut off; only for
    `user`."""
    at: str = ""
    """Dotted path to the time of the line (ISO 8601); for `turn_end` and `user`: a line that is
    read late must not end the turn after it."""

    def matches(self, line: Mapping[str, Any]) -> bool:
        """Tell whether a decoded line is of this kind; values of another type never equal."""
        return all(_same(lookup(line, path), wanted) for path, wanted in self.match.items())


class Evidence(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the program itself writes down what it was told. Default: nowhere."""

    transcript: str = ""
    """Path template of the JSONL file; absolute once expanded."""
    records: tuple[Record, ...] = ()
    """What its lines mean; the first that matches decides."""
    prompt_hook: bool = False
    """The program runs our hook at each user prompt (`{prompt_hook}`: its argv as JSON)."""
    hooks: dict[str, HookKind] = {}
    """What the events mean that the program tells our hook of (`{hook}`: its command line), by
    their `hook_event_name`. With any, `prompt_hook` is true. `turn_prompt` is a prompt that a turn
    begins with: one before it that nothing ended was cut off."""
    status_file: str = ""
    """Path template of a JSON file in which the program tells whether a turn runs; `{pid}` is its
    process id. Default: none, then only `screen.busy` tells."""
    status_field: str = "status"
    """Dotted path to the word in it."""
    status_busy: tuple[str, ...] = ("busy",)
    """Words that mean a running turn."""


class Submit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a pasted text is sent off."""

    key: str = "Enter"
    """tmux key name (the `pane` door's routers use `C-j`)."""
    settle_ms: int = 300
    """Longest wait between paste and key (measured: 300 ms cures Claude Code's swallowed Enter)."""
    mentions: bool = False
    """The program attaches the file that an `@path` names; such mentions are made plain text."""
    empty_key: str = ""
    """Key that empties the composer reliably. With it, a message that the program gives back when
    iapeer interrupts its turn is cleared. Empty (default): it is left there."""
    erase_keys: tuple[str, ...] = ()
    """Keys, pressed one after the other, that erase the line with a folded paste wherever the
    cursor stands in it and do nothing else, neither in an empty composer nor while a turn runs.
    With them, a paste that stays in the composer although the program has read it is erased. Empty
    (default): it is left there, and what follows waits."""


class Control(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a person would do; empty (default): the verb is refused for this runtime."""

    interrupt: str = ""
    """Key that stops the running turn."""
    compact: str = ""
    """One line that is typed and submitted to shorten the context."""
    compact_refused: tuple[str, ...] = ()
    """Expressions that one more of on the screen means: there is nothing to shorten."""


class Errors(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the words of a failed turn mean."""

    quota: tuple[str, ...] = ()
    """Categories that pass by themselves at a known or likely time: new messages are held as
    `quota`. Every other one is `api_error`."""
    reset: tuple[str, ...] = ()
    """Expressions searched in the error's text for the time of the reset, in groups named `epoch`
    (seconds), `seconds`, `minutes`, `hours` (from now on; they add up), or `clock` (`15:30`,
    `3pm`, `3:30pm`: the next such local time, or that of a `date` such as `Nov 25` or
    `Nov 25, 2027`)."""


class Tested(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Versions of the program the manifest was seen to work with; never enforced."""

    versions: tuple[str, ...] = ()


class RuntimeSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One runtime, complete: every default filled in, every expression and template checked."""

    id: str
    """Name in identities: a lower-case letter, then up to 31 letters and digits."""
    title: str = ""
    """For people; default: the id."""
    kind: Kind = "tui"
    """`tui`: a program in a terminal. `router`: a headless bridge in a pane that reads raw lines.
    `service`: any program that connects by itself and reads its inbox."""
    intelligence: Literal["", "artificial", "natural", "absent"] = ""
    """Nature of a peer of this runtime unless its profile says otherwise; default: `artificial`
    for `tui`, `absent` for the others."""
    doors: tuple[Door, ...] = ()
    """In order of preference; default by kind: `paste`, `pane`, `inbox`."""
    config: Config = "shared"
    """`shared`: the program works in the user's own configuration and login, ours comes by flags,
    environment and files of our own. `isolated`: it has a configuration home per peer."""
    queue: Literal["volatile", "durable"] = "volatile"
    """Whether what the program has queued itself survives its death."""
    window: int = 1
    """Messages that may be landed and not yet seen per session."""
    launch: Launch = Launch()
    screen: Screen = Screen()
    evidence: Evidence = Evidence()
    submit: Submit = Submit()
    control: Control = Control()
    errors: Errors = Errors()
    tested: Tested = Tested()

    @property
    def can_resume(self) -> bool:
        """Whether a session can be gone on with."""
        return bool(self.launch.resume_argv)

    @property
    def proves_seen(self) -> bool:
        """Whether `seen` can ever be reached; otherwise `landed` is final."""
        evidence = self.evidence
        return (
            bool(evidence.records or evidence.hooks or self.has_channel)
            or evidence.prompt_hook
            or "inbox" in self.doors
        )

    @property
    def has_channel(self) -> bool:
        """Whether the program is spoken to through a server of its own."""
        return not {"appserver", "http"}.isdisjoint(self.doors)

    @property
    def tells_turns(self) -> bool:
        """Whether something tells how turns end, so that one can be seen to die."""
        ends = {"turn_end", "turn_failed"}
        return (
            self.has_channel
            or any(record.kind == "turn_end" for record in self.evidence.records)
            or not ends.isdisjoint(self.evidence.hooks.values())
        )


def applies(when: When, *, isolated: bool) -> bool:
    """Whether something of a manifest is meant for this kind of configuration home."""
    return when == "always" or (when == "isolated") == isolated


def lookup(line: object, path: str) -> object:
    """Return the value at a dotted path of decoded JSON, None where there is none."""
    for name in path.split("."):
        if not isinstance(line, Mapping):
            return None
        line = line.get(name)
    return line


def _same(found: object, wanted: object) -> bool:
    if wanted == ANY:
        return found is not None
    if isinstance(found, bool) or isinstance(wanted, bool):
        return found is wanted
    return found == wanted
