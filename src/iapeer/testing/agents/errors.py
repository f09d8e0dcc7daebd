"""Why the real agents can't be had, each with the exit status a script can act on."""

from __future__ import annotations

from iapeer.core.errors import IapeerError

UNAVAILABLE = 69
"""EX_UNAVAILABLE of sysexits.h: this machine can't; elsewhere than in CI that is a skip."""
GATE_NOT_RUN = 75
"""EX_TEMPFAIL of sysexits.h: it could not be tried; neither a pass nor a failure of the code."""


class AgentError(IapeerError):
    """The base of these errors; alone it means that an install failed for good."""

    code = "agent"


class NotForThisMachine(AgentError):
    """What an install needs isn't on this machine: npm, or a pinned build for its platform."""

    code = "agent_unavailable"


class DownloadFailed(AgentError):
    """Every try to download failed; later it may work."""

    code = "agent_download"


class NotInstalled(AgentError):
    """The program was asked for before it was installed."""

    code = "agent_not_installed"


class WrongContent(AgentError):
    """What came has another hash than the pinned one. Never tried again, never used."""

    code = "agent_content"
