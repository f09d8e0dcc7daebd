"""Reading and writing the keys that profile and registry record share.

`Fields` collects what a JSON object holds: known keys are taken out one by one, and what is
left is foreign. Errors are raised as the class and with the prefix the caller gives.
"""

from __future__ import annotations

import re
from typing import cast

from iapeer.core.errors import IapeerError
from iapeer.core.identity import Intelligence, default_intelligence, read_intelligence
from iapeer.core.names import is_valid_name, is_valid_runtime

DESCRIPTION_MAX = 450
"""Longest description in the registry, in code points."""

_UID = re.compile(r"[0-9a-f]{32}")


def is_uid(value: object) -> bool:
    """Tell whether `value` is a peer's uid: 32 lower-case hexadecimal characters."""
    return isinstance(value, str) and _UID.fullmatch(value) is not None


def clamp_description(text: str) -> str:
    """Return `text` trimmed and cut to DESCRIPTION_MAX."""
    return text.strip()[:DESCRIPTION_MAX]


def put_in_order(
    order: tuple[str, ...], known: dict[str, object], extra: dict[str, object]
) -> dict[str, object]:
    """Return both parts as one object: keys that were read keep their place, new ones follow."""
    both = extra | known
    return {key: both[key] for key in order if key in both} | both


class Fields:
    """The keys of one JSON object; `left` holds those not taken yet.

    A key with a value its type can't hold is refused where the contract refuses it; elsewhere
    it reads as absent, stays in `left`, and so is written back as it was.
    """

    def __init__(self, raw: object, error: type[IapeerError], prefix: str) -> None:
        self._error = error
        self._prefix = prefix
        if not isinstance(raw, dict):
            raise self.fault("not an object")
        self.left: dict[str, object] = dict(raw)
        self.order: tuple[str, ...] = tuple(self.left)

    def fault(self, message: str, hint: str = "") -> IapeerError:
        """Return the error to raise, naming the source."""
        return self._error(f"{self._prefix}{message}", hint=hint)

    def text(self, key: str) -> str:
        """Take a string, trimmed; "" when absent or something else."""
        value = self.left.get(key)
        if not isinstance(value, str):
            return ""
        del self.left[key]
        return value.strip()

    def personality(self) -> str:
        """Take `personality`; it must be there and be a name."""
        value = self.left.pop("personality", None)
        if not isinstance(value, str) or not value.strip():
            raise self.fault("missing personality")
        if not is_valid_name(value.strip()):
            raise self.fault(f"invalid personality {value.strip()!r}")
        return value.strip()

    def default_runtime(self) -> str:
        """Take `default_runtime`, or the legacy `runtime` where it is absent or blank."""
        mirror = self.left.pop("runtime", None)
        value = self.left.pop("default_runtime", None)
        chosen = mirror if value is None or value == "" else value
        if chosen is None or chosen == "":
            raise self.fault("invalid runtime: no default_runtime")
        if not is_valid_runtime(chosen):
            raise self.fault(f"invalid runtime {chosen!r}")
        return chosen

    def runtimes(self, default: str) -> tuple[str, ...]:
        """Take `runtimes`, made unique and with the default first."""
        value = self.left.pop("runtimes", None)
        if value is None:
            return (default,)
        if not isinstance(value, list):
            raise self.fault("runtimes is not a list")
        for runtime in value:
            if not is_valid_runtime(runtime):
                raise self.fault(f"invalid runtime {runtime!r} in runtimes")
        return tuple(dict.fromkeys((default, *value)))

    def intelligence(self, runtime: str) -> tuple[Intelligence, str]:
        """Take `intelligence`: the nature and the word as written ("" for the default)."""
        value = self.left.get("intelligence")
        if value is None or value == "":
            return default_intelligence(runtime), ""
        nature = read_intelligence(value) if isinstance(value, str) else None
        if nature is None:
            raise self.fault(
                f"unknown intelligence {value!r}", hint="use artificial|natural|absent"
            )
        del self.left["intelligence"]
        return nature, str(value)

    def interfaces(self) -> dict[str, object] | None:
        """Take `interfaces`, an object or absent."""
        value = self.left.get("interfaces")
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.fault("interfaces is not an object")
        del self.left["interfaces"]
        return cast("dict[str, object]", value)

    def uid(self) -> str:
        """Take `uid`; "" in files from before it."""
        value = self.left.get("uid")
        if value is None or value == "":
            return ""
        if not is_uid(value):
            raise self.fault("invalid uid: not 32 hexadecimal characters")
        del self.left["uid"]
        return str(value)
