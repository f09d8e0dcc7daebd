"""Verbs about messages, deaths and the daemon itself."""

from __future__ import annotations

from .verb import JSON, Argument, Option, Verb

HOST = (
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
            JSON,
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
            JSON,
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
        options=(JSON,),
        examples=("iapeer trace k3vq7m2xd4ta", "iapeer trace k3vq7m2xd4ta --json"),
    ),
    Verb(
        "deaths",
        purpose="List the sessions that died, newest first, and of what.",
        handler="deaths:deaths",
        arguments=(Argument("peer", "only of this peer", is_required=False),),
        options=(Option("limit", "at most so many; default: 50", "number"), JSON),
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
        options=(JSON,),
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
            JSON,
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
        options=(JSON,),
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
