"""Whether an identity with work gets a session now, and which conversation it goes on with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from iapeer.core.errors import IapeerError
from iapeer.core.identity import Identity
from iapeer.core.profile import Profile
from iapeer.core.text import safe_text
from iapeer.registry.profiles import read_profile
from iapeer.registry.units import Unit, unit_of
from iapeer.runtimes.spec import RuntimeSpec

from .conversation import Conversation
from .journal import Journal
from .presence import Hold, Presence, Start

if TYPE_CHECKING:
    from .services import LaneServices


class Beginning(msgspec.Struct, frozen=True):
    """How a session begins: `native_id` is the conversation to go on with, empty if fresh."""

    start: Start
    native_id: str = ""
    topic: str = ""
    preface: str = ""
    """What a fresh session is told first."""
    alone: bool = False
    """Whether it is told that even if no message waits."""
    forced: bool = False
    """Whether a person asked: no back-off holds it."""


class Waking:
    """Asks the lifecycle rules, with everything they go by."""

    def __init__(self, journal: Journal, identity: Identity, services: LaneServices) -> None:
        self._journal = journal
        self._identity = identity
        self._s = self.services = services
        self.conversation = Conversation(journal.uid, identity, services)

    async def ask(self, *, stopped: bool) -> Beginning | Hold:
        """Return how a session begins, or why the work waits. Raises RuntimeUnknown."""
        presence, native_id = await self._presence(stopped=stopped)
        answer = self._s.rules.wake(presence, self._s.clock.now())
        if isinstance(answer, Hold):
            return answer
        resumes = answer.mode == "resume"
        return Beginning(answer, native_id if resumes else "", presence.topic, self.preface())

    async def wish(self) -> Beginning:
        """Return how a session begins that a person asks for: it goes on where it can."""
        past = await self.conversation.past(self._spec(), None)
        if past.native_id:
            return Beginning(Start("resume", "attach"), past.native_id, forced=True)
        return self._anew("attach-nothing-to-resume")

    async def fresh(self) -> Beginning:
        """Return how a session begins that is to be a fresh one, whatever was before."""
        return self._anew("folder-launch")

    def _anew(self, cause: str) -> Beginning:
        # The task of an ephemeral worker needs the first turn of its session.
        alone = not self.is_ephemeral()
        start = Start("fresh", cause)
        return Beginning(start, preface=self.preface(), alone=alone, forced=True)

    def is_ephemeral(self) -> bool:
        """Whether each task gets a session of its own, by the profile as it is now."""
        profile = self._profile()
        return profile is not None and profile.wake_policy == "ephemeral"

    def unit(self) -> Unit:
        """Return whose unit file the peer has: the service manager then starts and ends it."""
        return unit_of(self._s.settings.units_dir, self._identity.personality)

    async def _presence(self, *, stopped: bool) -> tuple[Presence, str]:
        spec = self._spec()
        head = await self._journal.next()
        past = await self.conversation.past(spec, head)
        profile = self._profile()
        presence = Presence(
            stopped=stopped,
            connects_itself=spec.kind == "service",
            managed=self.unit() != Unit.NONE,
            faults=await self._journal.faults(),
            trouble=self._s.budget.trouble(spec.id),
            can_resume=bool(past.native_id),
            parked=past.parked,
            fresh_next=past.fresh_next,
            ephemeral=profile is not None and profile.wake_policy == "ephemeral",
            human=profile is not None and bool((profile.interfaces or {}).get("telegram")),
            left_queued=past.left_queued,
            topic=(head.topic or "") if head else "",
            topics=frozenset(past.topics),
        )
        return presence, past.native_id

    def _profile(self) -> Profile | None:
        """Return the peer's own profile; one that can't be read changes nothing about its wake."""
        record = self._s.registry.snapshot(allow_stale=True).get(self._identity.personality)
        if record is None:
            return None
        try:
            return read_profile(Path(record.cwd))
        except IapeerError as error:
            self._s.log("profile-unread", identity=self._identity.address, reason=str(error))
            return None

    def preface(self) -> str:
        """Return the initial prompt, unless real CLIs would run it: they do with `!` and `/`."""
        profile = self._profile()
        text = safe_text(profile.initial_prompt).text.strip() if profile else ""
        if text.startswith(("!", "/")):
            self._s.log("initial-prompt-refused", identity=self._identity.address, first=text[0])
            return ""
        return text

    def _spec(self) -> RuntimeSpec:
        return self._s.catalog.get(self._identity.runtime)
