"""The table of verbs: what each is for, what it takes, and which function does it.

Help, parsing and the reference page are made from these values; a handler is named by a string
(`module:function` below `iapeer.cli`), so that a verb loads only what it needs. Plain classes on
purpose: `send` reads this table too, and dataclasses or msgspec would cost it half its budget.
"""

from __future__ import annotations


class Argument:
    """One positional word of a verb."""

    __slots__ = ("is_required", "name", "text")

    def __init__(self, name: str, text: str, *, is_required: bool = True) -> None:
        self.name = name
        self.text = text
        self.is_required = is_required


class Option:
    """One `--flag` of a verb; without `metavar` it is a boolean that takes no value."""

    __slots__ = ("is_repeatable", "metavar", "name", "text")

    def __init__(
        self, name: str, text: str, metavar: str = "", *, is_repeatable: bool = False
    ) -> None:
        self.name = name
        self.text = text
        self.metavar = metavar
        self.is_repeatable = is_repeatable

    @property
    def flag(self) -> str:
        """The option as it is typed."""
        return f"--{self.name}"


class Verb:
    """One verb, complete; `handler` takes a `Call` and returns the exit status."""

    __slots__ = ("arguments", "examples", "handler", "name", "notes", "options", "purpose")

    def __init__(  # noqa: PLR0913 - a record, built by keyword in the table below and nowhere else
        self,
        name: str,
        *,
        purpose: str,
        handler: str,
        examples: tuple[str, ...],
        arguments: tuple[Argument, ...] = (),
        options: tuple[Option, ...] = (),
        notes: str = "",
    ) -> None:
        self.name = name
        self.purpose = purpose
        self.handler = handler
        self.examples = examples
        self.arguments = arguments
        self.options = options
        self.notes = notes


_PEER = Argument("peer", "name of the peer")
_RUNTIME = Argument("runtime", "only this runtime of the peer", is_required=False)
_JSON = Option("json", "print JSON")

VERBS: tuple[Verb, ...] = (
    Verb(
        "send",
        purpose="Send a message to a peer.",
        handler="send:send",
        arguments=(
            Argument("peer", "name of the peer that is to get it"),
            Argument("text", "the message, if no option gives it", is_required=False),
        ),
        options=(
            Option("message", "the message", "text"),
            Option("message-file", "read the message from a UTF-8 file; - is stdin", "file"),
            Option("from", "send as this registered identity, e.g. claude-bob", "identity"),
            Option("runtime", "the recipient's runtime; default: its own choice", "id"),
            Option("topic", "subject of the conversation, at most 200 characters", "text"),
            Option(
                "attachment", "path of a file to point at; repeatable", "path", is_repeatable=True
            ),
            Option("key", "idempotency key: the same key sends once in 24 hours", "key"),
            Option("no-start", "if no daemon runs, leave it so: the message waits"),
            _JSON,
        ),
        notes=(
            "Give the message exactly once. A value that begins with -- needs the = form:\n"
            "--message='--force is a flag'. Without --from the sender is the session this runs\n"
            "in, else the peer that lives in this folder or one above it.\n"
            "Without a daemon the message is accepted all the same, and the daemon is started."
        ),
        examples=(
            'iapeer send bob --message "The build is green."',
            "git diff | iapeer send reviewer --message-file - --topic review",
        ),
    ),
    Verb(
        "list",
        purpose="List the peers of this host and what they are doing.",
        handler="listing:list_peers",
        options=(Option("all", "the core itself too, which sends notices"), _JSON),
        notes="● live   ◐ booting   ○ asleep   ✕ stopped   ! broken   ? unknown (no daemon)",
        examples=("iapeer list", "iapeer list --json"),
    ),
    Verb(
        "create",
        purpose="Create a peer with a folder of its own.",
        handler="peers:create",
        arguments=(Argument("name", "name of the new peer"),),
        options=(
            Option("runtime", "which agent program it runs; default: the one installed", "id"),
            Option("path", "its folder; the last part must be the name", "folder"),
            Option("description", "what the others should ask it for", "text"),
            Option("intelligence", "artificial, natural or absent", "kind"),
            _JSON,
        ),
        examples=(
            'iapeer create bob --runtime claude --description "Reviews pull requests"',
            "iapeer create web-api --path ~/src/web-api",
        ),
    ),
    Verb(
        "init",
        purpose="Make an existing folder a peer; the folder's name becomes the peer's.",
        handler="peers:init",
        arguments=(Argument("folder", "the folder; default: this one", is_required=False),),
        options=(
            Option("runtime", "which agent program it runs; default: the one installed", "id"),
            Option("description", "what the others should ask it for", "text"),
            Option("intelligence", "artificial, natural or absent", "kind"),
            _JSON,
        ),
        notes="Doing it again changes nothing that is already there.",
        examples=("iapeer init", "iapeer init ~/src/web-api --runtime codex"),
    ),
    Verb(
        "remove",
        purpose="End and unregister a peer; its folder is kept.",
        handler="peers:remove",
        arguments=(_PEER,),
        options=(Option("force", "also when it is live"), _JSON),
        notes="Asks nothing. Undelivered messages to the peer fail and their senders are told.",
        examples=("iapeer remove bob", "iapeer remove bob --force"),
    ),
    Verb(
        "rename",
        purpose="Rename a sleeping peer; its messages and marks stay its own.",
        handler="peers:rename",
        arguments=(_PEER, Argument("new-name", "its new name")),
        options=(_JSON,),
        examples=("iapeer rename bob robert", "iapeer rename bob robert --json"),
    ),
    Verb(
        "verify",
        purpose="Check the profiles of all peers against the index.",
        handler="verifying:verify",
        options=(
            Option("fix", "bring the index in line with the profiles"),
            _JSON,
        ),
        examples=("iapeer verify", "iapeer verify --fix"),
    ),
    Verb(
        "enable",
        purpose="Enable a plug-in of the agent programs for a peer.",
        handler="enabling:enable",
        arguments=(
            Argument("plugin", "its name, or name@marketplace"),
            Argument("peer", "name of the peer; default: of this folder", is_required=False),
        ),
        options=(Option("no-setup", "don't run the plug-in's own set-up"), _JSON),
        notes=(
            "For claude in the peer's folder only; codex has its plug-ins for the whole account.\n"
            "A marketplace that is not named is agfpd. Each program has two minutes per step."
        ),
        examples=("iapeer enable notes bob", "iapeer enable notes@my-market --no-setup"),
    ),
    Verb(
        "native-memory",
        purpose="Turn the memory that agent programs keep by themselves off or on.",
        handler="memory:native_memory",
        arguments=(Argument("action", "off or on"),),
        options=(
            Option("peer", "of this peer", "name"),
            Option("all", "of every registered peer"),
            _JSON,
        ),
        notes=(
            "Writes one key into .claude/settings.json or .codex/config.toml of the peer's folder\n"
            "and takes it out again. Counts from the next session on."
        ),
        examples=("iapeer native-memory off --peer bob", "iapeer native-memory on --all --json"),
    ),
    Verb(
        "memory",
        purpose="Do again what the memory provider does for a new peer.",
        handler="memory:memory",
        arguments=(Argument("action", "repair"),),
        options=(
            Option("peer", "for this peer", "name"),
            Option("all", "for every registered peer"),
            _JSON,
        ),
        notes="For peers that are older than the provider, or whose provision failed.",
        examples=("iapeer memory repair --peer bob", "iapeer memory repair --all"),
    ),
    Verb(
        "trust-hooks",
        purpose="Have Codex trust the hooks of a file.",
        handler="memory:trust",
        arguments=(Argument("hooks-file", "a hooks.json of Codex"),),
        options=(
            Option("check", "only tell; exit status 0 means that all are trusted"),
            _JSON,
        ),
        notes=(
            "Whoever may write that file can then run programs as you. --check prints status\n"
            "(trusted, missing or drift), event and key of each hook, with tabs between them."
        ),
        examples=(
            "iapeer trust-hooks .codex/hooks.json",
            "iapeer trust-hooks .codex/hooks.json --check",
        ),
    ),
    Verb(
        "attach",
        purpose="Open a peer's terminal; wakes the peer if it sleeps.",
        handler="sessions:attach",
        arguments=(_PEER, _RUNTIME),
        notes="Leave with Ctrl-] d; the peer goes on.",
        examples=("iapeer attach bob", "iapeer attach bob codex"),
    ),
    Verb(
        "stop",
        purpose="End a peer's sessions and refuse further messages to it.",
        handler="sessions:stop",
        arguments=(Argument("peer", "name of the peer", is_required=False), _RUNTIME),
        options=(Option("all", "every registered peer"), _JSON),
        notes="Messages accepted before are held until it is started.",
        examples=("iapeer stop bob", "iapeer stop --all"),
    ),
    Verb(
        "start",
        purpose="Allow messages to a stopped or broken peer again.",
        handler="sessions:start",
        arguments=(Argument("peer", "name of the peer", is_required=False), _RUNTIME),
        options=(Option("all", "every registered peer"), _JSON),
        examples=("iapeer start bob", "iapeer start --all"),
    ),
    Verb(
        "interrupt",
        purpose="Stop the turn that a peer is in, as Escape at its keyboard would.",
        handler="sessions:interrupt",
        arguments=(_PEER, _RUNTIME),
        options=(_JSON,),
        notes="What it was reading stays read; messages that wait come next.",
        examples=("iapeer interrupt bob", "iapeer interrupt bob codex"),
    ),
    Verb(
        "compact",
        purpose="Shorten a peer's context and wait until its own program says that it is done.",
        handler="sessions:compact",
        arguments=(_PEER, _RUNTIME),
        options=(_JSON,),
        notes="A parked session is resumed for it. Begins when the running turn has ended.",
        examples=("iapeer compact bob", "iapeer compact bob codex"),
    ),
    Verb(
        "messages",
        purpose="List messages, newest first.",
        handler="messages:messages",
        options=(
            Option("peer", "only from or to this peer", "name"),
            Option("state", "only in this state, e.g. held or seen", "state"),
            Option("grep", "only with this text in the body or the topic", "text"),
            Option("limit", "at most so many; default: 50", "number"),
            Option("bodies", "with --json: whole bodies, at most 50 messages"),
            _JSON,
        ),
        notes="Shows the beginning of each body; `iapeer trace` tells the story of one message.",
        examples=(
            "iapeer messages --peer bob --state held",
            "iapeer messages --grep deploy --json",
        ),
    ),
    Verb(
        "dead-letter",
        purpose="See to messages that failed or expired: list, redeliver or drop them.",
        handler="deadletters:dead_letter",
        arguments=(
            Argument("action", "list, redeliver or drop"),
            Argument("message-id", "which one, to redeliver or drop", is_required=False),
        ),
        options=(
            Option("all", "redeliver or drop all that are listed"),
            Option("peer", "only from or to this peer", "name"),
            _JSON,
        ),
        notes=(
            "A redelivery is a new message with the same text, and is refused as any other. Drop\n"
            "takes a message off the list; what happened to it can still be traced."
        ),
        examples=(
            "iapeer dead-letter list",
            "iapeer dead-letter redeliver k3vq7m2xd4ta",
            "iapeer dead-letter drop --all --peer bob",
        ),
    ),
    Verb(
        "trace",
        purpose="Tell the story of one message.",
        handler="trace:trace",
        arguments=(Argument("message-id", "its id: iapeer messages lists them"),),
        options=(_JSON,),
        examples=("iapeer trace k3vq7m2xd4ta", "iapeer trace k3vq7m2xd4ta --json"),
    ),
    Verb(
        "daemon",
        purpose="Run the router of this root in the foreground.",
        handler="daemonctl:daemon",
        options=(
            Option("port", "TCP port on 127.0.0.1; 0: any free one", "number"),
            Option("on-demand", "end quietly if another one serves this root"),
        ),
        notes="Says READY on stderr when it answers; SIGTERM or Ctrl-C ends it in order.",
        examples=("iapeer daemon", "iapeer daemon --port 0"),
    ),
    Verb(
        "status",
        purpose="Ask the daemon how it is; exit status 0 means healthy.",
        handler="daemonctl:status",
        options=(_JSON,),
        examples=("iapeer status", "iapeer status --json"),
    ),
    Verb(
        "version",
        purpose="Print the version.",
        handler="main:version",
        examples=("iapeer version", "iapeer --version"),
    ),
    Verb(
        "help",
        purpose="Explain a verb, or list them all.",
        handler="main:show_help",
        arguments=(Argument("verb", "the verb to explain", is_required=False),),
        examples=("iapeer help", "iapeer help send"),
    ),
)

BY_NAME: dict[str, Verb] = {verb.name: verb for verb in VERBS}
