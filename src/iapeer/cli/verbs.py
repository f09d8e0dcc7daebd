"""The table of verbs: what each is for, what it takes, and which function does it.

Help, parsing and the reference page are made from these values; a handler is named by a string
(`module:function` below `iapeer.cli`), so that a verb loads only what it needs.
"""

from __future__ import annotations

from .host_verbs import HOST
from .peer_verbs import PEERS
from .session_verbs import SESSIONS
from .verb import JSON, Argument, Option, Verb

SEND = Verb(
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
        Option("attachment", "path of a file to point at; repeatable", "path", is_repeatable=True),
        Option("key", "idempotency key: the same key sends once in 24 hours", "key"),
        Option("interrupt", "stop the turn the peer is in first; not for agents"),
        Option("no-start", "if no daemon runs, leave it so: the message waits"),
        JSON,
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
)

VERBS: tuple[Verb, ...] = (SEND, *PEERS, *SESSIONS, *HOST)

BY_NAME: dict[str, Verb] = {verb.name: verb for verb in VERBS}
