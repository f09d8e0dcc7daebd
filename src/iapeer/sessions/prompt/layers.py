"""The layers of a system prompt as text: pure, and exact to the byte.

Other programs compare these bytes, and a stable beginning is what a model's prompt cache lives
on. What other peers wrote is data here: it can neither end its line nor pass for a marker.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

import msgspec

from iapeer.core.profile import DESCRIPTION_MAX, RegistryRecord
from iapeer.core.text import one_line

ROSTER_HEADING = "## Known peers"
ROSTER_DESCRIPTIONS_MAX = 100 * DESCRIPTION_MAX
"""Characters all descriptions of the roster share: full length for up to a hundred peers."""
ROSTER_DESCRIPTION_MIN = 60
"""What a peer of a large fleet may say of itself at least, in characters."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_COMMENT_END = re.compile("--(!?)>")
_TAG_START = re.compile("<(?=[!/?A-Za-z])")
# Tag characters: no person sees them, a model reads them as letters.
_INVISIBLE = re.compile("[\U000e0000-\U000e007f]")


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent is told first; `today` is the local date, `YYYY-MM-DD`.

    `peer_cwd` and `description` are the registry's, not the local profile's.
    """

    personality: str
    description: str
    peer_cwd: str
    platform: str
    os_version: str
    user: str
    hostname: str
    today: str


def front_matter(facts: Facts) -> str:
    """Return layer 1: eight `key: "value"` lines between two `---`."""
    values = (
        ("personality", facts.personality),
        ("description", facts.description),
        ("peer-cwd", facts.peer_cwd),
        ("platform", facts.platform),
        ("os_version", facts.os_version),
        ("user", facts.user),
        ("hostname", facts.hostname),
        ("today", facts.today),
    )
    lines = (f"{key}: {json_literal(value)}\n" for key, value in values)
    return f"---\n{''.join(lines)}---\n\n"


def json_literal(value: str) -> str:
    r"""Return `value` as a JSON string: non-ASCII and `/` as they are, DEL as `\u007f`.

    Byte-equal to `jq @json`. A lone surrogate (a path that is no UTF-8) stays an escape: a file
    can't hold it otherwise.
    """
    literal = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", literal)


def file_section(path: str, text: str) -> str:
    """Return a layer file below its marker, "" for one that is empty or has newlines only.

    The content is not touched, but for newlines (LF or CRLF) at its end.
    """
    content = text.rstrip("\r\n")
    return f"<!-- {_marker_path(path)} -->\n{content}" if content else ""


def display_path(path: str, home: str) -> str:
    """Return an absolute path with a leading HOME as `~`; a HOME of "" or "/" replaces nothing."""
    home = home.rstrip("/")
    if home and (path == home or path.startswith(f"{home}/")):
        return f"~{path[len(home) :]}"
    return path


def roster(records: Sequence[RegistryRecord]) -> str:
    """Return the registry layer, sorted by personality; "" without peers.

    A description is one line and holds no markup. Up to a hundred peers show all of it; in a
    larger fleet each is cut to an equal share.
    """
    if not records:
        return ""
    share = ROSTER_DESCRIPTIONS_MAX // len(records)
    limit = min(DESCRIPTION_MAX, max(ROSTER_DESCRIPTION_MIN, share))
    ordered = sorted(records, key=lambda record: record.personality)
    return "\n".join((ROSTER_HEADING, *(_entry(record, limit) for record in ordered)))


def joined(sections: Iterable[str]) -> str:
    """Return the sections with one blank line between them and one newline at the end."""
    stripped = (section.rstrip("\r\n") for section in sections)
    return "\n\n".join(section for section in stripped if section) + "\n"


def _entry(record: RegistryRecord, limit: int) -> str:
    description = _as_data(record.description, limit)
    return "\n".join(
        (
            f"- {record.personality}" + (f" — {description}" if description else ""),
            f"  runtime: {record.default_runtime}",
            f"  runtimes: {', '.join(record.runtimes)}",
            f"  intelligence: {record.intelligence.value}",
        )
    )


def _as_data(text: str, limit: int) -> str:
    """Return what another peer wrote so that it stays on its line and opens or ends no markup.

    A blank is put into `<tag`, `<!--` and `-->`; `a < b` and `a -> b` stay.
    """
    line = one_line(_INVISIBLE.sub("", text), limit)
    return _COMMENT_END.sub(r"--\1 >", _TAG_START.sub("< ", line))


def _marker_path(path: str) -> str:
    """Return a path that can't end the comment it stands in, nor its line."""
    return _COMMENT_END.sub(r"--\1&gt;", _UNPRINTABLE.sub("\ufffd", path))
