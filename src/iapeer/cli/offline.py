"""While no daemon runs: `send` is accepted here, and a daemon is started for who needs one."""

from __future__ import annotations

import os
from typing import Any

from iapeer.core.draft import Draft
from iapeer.core.errors import DaemonDown, IapeerError
from iapeer.core.outcomes import SendResult
from iapeer.core.settings import Settings

from . import output
from .context import load_settings

LATER = "the daemon will deliver it"
_START = "start it: iapeer daemon"


def accept(body: dict[str, Any]) -> SendResult:
    """Accept what `send` would have asked the daemon to. Raises IapeerError."""
    from iapeer.host.letters import OfflineHouse, OfflineSend

    draft = Draft(
        to=body["to"],
        message=body["message"],
        runtime=body.get("runtime"),
        topic=body.get("topic"),
        attachments=tuple(body.get("attachments", ())),
    )
    sending = OfflineSend(draft, sender=body.get("from", ""), key=body.get("key"))
    return OfflineHouse(load_settings(), os.environ).send(sending)


def start(down: DaemonDown, verb: str) -> None:
    """Start the daemon and say so as `verb`; what it has done stays done if that fails."""
    from iapeer.host.ondemand import Started, start_daemon

    settings = load_settings()
    # What was accepted must be told even if starting takes its time or ends badly.
    output.flush()
    try:
        started = start_daemon(settings, os.environ)
    except IapeerError as error:
        output.warn(f"iapeer {verb}: {down.message}, and it can't be started: {error.message}")
        output.warn(f"hint: {error.hint or _START}")
        return
    if started is Started.STARTED:
        output.warn(f"iapeer {verb}: {down.message}: started it")
    else:
        output.warn(f"iapeer {verb}: {down.message}: it is being started, see {_logs(settings)}")


def leave(down: DaemonDown) -> None:
    """Say that nothing runs."""
    output.warn(f"iapeer send: {down.message}: the message waits until one does\nhint: {_START}")


def _logs(settings: Settings) -> str:
    from iapeer.storage.paths import Paths

    return str(Paths(settings.root).logs)
