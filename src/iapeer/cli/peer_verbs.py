"""Verbs about who is there: peers, their runtimes, their memory."""

from __future__ import annotations

from .verb import JSON, PEER, Argument, Option, Verb

PEERS = (
    Verb(
        "list",
        purpose="List the peers of this host and what they are doing.",
        handler="listing:list_peers",
        options=(Option("all", "the core itself too, which sends notices"), JSON),
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
            JSON,
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
            JSON,
        ),
        notes="Doing it again changes nothing that is already there.",
        examples=("iapeer init", "iapeer init ~/src/web-api --runtime codex"),
    ),
    Verb(
        "remove",
        purpose="End and unregister a peer; its folder is kept.",
        handler="peers:remove",
        arguments=(PEER,),
        options=(Option("force", "also when it is live"), JSON),
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
            JSON,
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
            JSON,
        ),
        notes="A live session goes on; messages that name no runtime go to a live one first.",
        examples=("iapeer default-runtime codex --peer bob", "iapeer default-runtime claude --all"),
    ),
    Verb(
        "rename",
        purpose="Rename a sleeping peer; its messages and marks stay its own.",
        handler="peers:rename",
        arguments=(PEER, Argument("new-name", "its new name")),
        options=(JSON,),
        examples=("iapeer rename bob robert", "iapeer rename bob robert --json"),
    ),
    Verb(
        "verify",
        purpose="Check the profiles of all peers against the index.",
        handler="verifying:verify",
        options=(
            Option("fix", "bring the index in line with the profiles"),
            JSON,
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
        options=(Option("no-setup", "don't run the plug-in's own set-up"), JSON),
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
            JSON,
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
            JSON,
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
            JSON,
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
)
