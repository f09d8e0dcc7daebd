"""Verbs about what runs: sessions, for people and for the agents in them."""

from __future__ import annotations

from .verb import JSON, PEER, RUNTIME, RUNTIME_DEFAULT, Argument, Option, Verb

SESSIONS = (
    Verb(
        "attach",
        purpose="Open a peer's terminal; wakes the peer if it sleeps.",
        handler="sessions:attach",
        arguments=(PEER, Argument("runtime", "on this runtime of it", is_required=False)),
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
        arguments=(PEER, RUNTIME_DEFAULT),
        options=(JSON,),
        notes="Exit status 0 means that the fresh one is ready. A stopped peer is started by it.",
        examples=("iapeer new bob", "iapeer new bob codex --json"),
    ),
    Verb(
        "refresh",
        purpose="Let a peer's next session begin afresh; the present one is not ended.",
        handler="presence:refresh",
        arguments=(Argument("peer", "name of the peer", is_required=False), RUNTIME),
        options=(Option("all", "every registered peer"), JSON),
        notes="For a change of its doctrine or tools that should count once it is asleep.",
        examples=("iapeer refresh bob", "iapeer refresh --all"),
    ),
    Verb(
        "live-runtime",
        purpose="Print the runtime that a peer is live on; exit status 1 if it is on none.",
        handler="presence:live_runtime",
        arguments=(PEER,),
        options=(JSON,),
        examples=("iapeer live-runtime bob", "iapeer live-runtime bob --json"),
    ),
    Verb(
        "self-done",
        purpose="For an agent: say that the task of this session is finished.",
        handler="presence:self_done",
        options=(JSON,),
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
        options=(JSON,),
        notes="What the session knows and has not written down is lost.",
        examples=("iapeer self-fresh", "iapeer self-fresh --json"),
    ),
    Verb(
        "stop",
        purpose="End a peer's sessions and refuse further messages to it.",
        handler="sessions:stop",
        arguments=(Argument("peer", "name of the peer", is_required=False), RUNTIME),
        options=(Option("all", "every registered peer"), JSON),
        notes="Messages accepted before are held until it is started.",
        examples=("iapeer stop bob", "iapeer stop --all"),
    ),
    Verb(
        "start",
        purpose="Allow messages to a stopped or broken peer again.",
        handler="sessions:start",
        arguments=(Argument("peer", "name of the peer", is_required=False), RUNTIME),
        options=(Option("all", "every registered peer"), JSON),
        examples=("iapeer start bob", "iapeer start --all"),
    ),
    Verb(
        "interrupt",
        purpose="Stop the turn that a peer is in, as Escape at its keyboard would.",
        handler="sessions:interrupt",
        arguments=(PEER, RUNTIME),
        options=(JSON,),
        notes="What it was reading stays read; messages that wait come next.",
        examples=("iapeer interrupt bob", "iapeer interrupt bob codex"),
    ),
    Verb(
        "compact",
        purpose="Shorten a peer's context and wait until its own program says that it is done.",
        handler="sessions:compact",
        arguments=(PEER, RUNTIME),
        options=(JSON,),
        notes="A parked session is resumed for it. Begins when the running turn has ended.",
        examples=("iapeer compact bob", "iapeer compact bob codex"),
    ),
)
