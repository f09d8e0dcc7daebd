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
_RUNTIME_DEFAULT = Argument("runtime", "which one; default: the peer's own", is_required=False)
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
            Option("interrupt", "stop the turn the peer is in first; not for agents"),
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
        "add-runtime",
        purpose="Let peers run on one more agent program; their default stays.",
        handler="runtimes:add_runtime",
        arguments=(Argument("runtime", "id of the runtime"),),
        options=(
            Option("peer", "this peer", "name"),
            Option("all", "every agent that is registered"),
            _JSON,
        ),
        examples=("iapeer add-runtime codex --peer bob", "iapeer add-runtime codex --all"),
    ),
    Verb(
        "default-runtime",
        purpose="Let peers answer on another one of their runtimes.",
        handler="runtimes:default_runtime",
        arguments=(Argument("runtime", "id of a runtime that they declare"),),
        options=(
            Option("peer", "this peer", "name"),
            Option("all", "every agent that is registered"),
            _JSON,
        ),
        notes="A live session goes on; messages that name no runtime go to a live one first.",
        examples=("iapeer default-runtime codex --peer bob", "iapeer default-runtime claude --all"),
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
        arguments=(_PEER, Argument("runtime", "on this runtime of it", is_required=False)),
        options=(Option("json", "only wake it, and print where to attach"),),
        notes=(
            "Leave with Ctrl-] d; the peer goes on. The wheel scrolls back, q ends that. Without\n"
            "a runtime: the live one, else the one used last, else the default one."
        ),
        examples=("iapeer attach bob", "iapeer attach bob codex"),
    ),
    Verb(
        "launch",
        purpose="Begin a fresh session of this folder's peer; iapeer <runtime> is short for it.",
        handler="presence:launch",
        arguments=(Argument("runtime", "id of a runtime that the peer declares"),),
        options=(Option("json", "don't attach, print where to"),),
        notes=(
            "On a terminal it attaches as well; leave with Ctrl-] d. A session that is live\n"
            "already is not ended: iapeer new does that."
        ),
        examples=("iapeer claude", "iapeer launch claude --json"),
    ),
    Verb(
        "new",
        purpose="End a peer's session and bring a fresh one up.",
        handler="presence:new",
        arguments=(_PEER, _RUNTIME_DEFAULT),
        options=(_JSON,),
        notes="Exit status 0 means that the fresh one is ready. A stopped peer is started by it.",
        examples=("iapeer new bob", "iapeer new bob codex --json"),
    ),
    Verb(
        "refresh",
        purpose="Let a peer's next session begin afresh; the present one is not ended.",
        handler="presence:refresh",
        arguments=(Argument("peer", "name of the peer", is_required=False), _RUNTIME),
        options=(Option("all", "every registered peer"), _JSON),
        notes="For a change of its doctrine or tools that should count once it is asleep.",
        examples=("iapeer refresh bob", "iapeer refresh --all"),
    ),
    Verb(
        "live-runtime",
        purpose="Print the runtime that a peer is live on; exit status 1 if it is on none.",
        handler="presence:live_runtime",
        arguments=(_PEER,),
        options=(_JSON,),
        examples=("iapeer live-runtime bob", "iapeer live-runtime bob --json"),
    ),
    Verb(
        "self-done",
        purpose="For an agent: say that the task of this session is finished.",
        handler="presence:self_done",
        options=(_JSON,),
        notes=(
            'Ends the session of a peer with wake_policy "ephemeral" once it is quiet, and lets\n'
            "its next task begin. Wakes nobody. Works while no daemon runs, too."
        ),
        examples=("iapeer self-done", "iapeer self-done --json"),
    ),
    Verb(
        "self-fresh",
        purpose="For an agent: end this session and begin a fresh one.",
        handler="presence:self_fresh",
        options=(_JSON,),
        notes="What the session knows and has not written down is lost.",
        examples=("iapeer self-fresh", "iapeer self-fresh --json"),
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
        "deaths",
        purpose="List the sessions that died, newest first, and of what.",
        handler="deaths:deaths",
        arguments=(Argument("peer", "only of this peer", is_required=False),),
        options=(Option("limit", "at most so many; default: 50", "number"), _JSON),
        notes=(
            "Ends that somebody asked for are no deaths. Each line: id of the death, when, who,\n"
            "cause and how sure that is, and what speaks for it. Works while no daemon runs, too."
        ),
        examples=("iapeer deaths", "iapeer deaths bob --json"),
    ),
    Verb(
        "postmortem",
        purpose="Tell the story of one death: what ran, its last words, the cause, what to do.",
        handler="deaths:postmortem",
        arguments=(
            Argument("peer-or-death", "a peer, for its newest death, or the id of a death"),
        ),
        options=(_JSON,),
        notes="The ids: iapeer deaths. Shows no message and no secret.",
        examples=("iapeer postmortem bob", "iapeer postmortem 3f2a9c1d --json"),
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
        "dev",
        purpose="For developers: examine an agent CLI, or run the model simulator.",
        handler="dev:dev",
        arguments=(
            Argument("action", "conformance or model-server"),
            Argument("runtime", "conformance: which one to examine", is_required=False),
        ),
        options=(
            Option("path", "look for the program in this folder first", "folder"),
            Option(
                "env",
                "a variable for it, may hold {model_url}; repeatable",
                "name=value",
                is_repeatable=True,
            ),
            Option(
                "home-file",
                "a file for its HOME, likewise; repeatable",
                "path=file",
                is_repeatable=True,
            ),
            Option("timeout", "for all checks together, in seconds; default: 300", "number"),
            Option("markdown", "print the table as Markdown"),
            Option("port", "model-server: TCP port on 127.0.0.1; default: any free one", "number"),
            Option("script", "model-server: TOML file of rules; default: always ok", "file"),
            _JSON,
        ),
        notes=(
            "conformance starts the program in a root and a HOME that are thrown away, with the\n"
            "simulator for a model: no login, nothing of yours is touched. Exit status: 0 all\n"
            "checks passed, 1 one failed, 69 the program is not there.\n"
            "model-server prints its address and serves until SIGTERM or Ctrl-C."
        ),
        examples=(
            "iapeer dev conformance claude",
            "iapeer dev conformance mytool --env OPENAI_BASE_URL={model_url}/v1 --markdown",
            "iapeer dev model-server --port 4000 --script rules.toml",
        ),
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
