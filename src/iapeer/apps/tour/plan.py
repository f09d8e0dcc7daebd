"""What is played: who takes part, on which runtime, and what alice is asked to do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from iapeer.core import env
from iapeer.core.errors import RuntimeUnknown
from iapeer.core.identity import Identity
from iapeer.core.settings import make_settings
from iapeer.runtimes.catalog import Catalog

DEMO = "demo"
"""The bundled agent: a script that needs no account and answers within a second."""

YOU = Identity("api", "you")
"""The person at the command line; the tour reads this peer's inbox."""

_SCRIPTED = "ASK bob REPLY The build is green."
_PLAIN_WORDS = (
    "Please ask bob, with send_to_peer, to name his favourite prime number."
    " When he has answered, send me his answer with send_to_peer."
)
_SCRIPTED_S = 25.0
_REAL_S = 240.0
"""A real agent boots for tens of seconds and thinks for as long."""


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """A made-up person whose agents are used instead of the user's own.

    `program_dir` comes first in PATH, `variables` go into each agent's launch.env, `words` say in
    the title what is played.
    """

    program_dir: Path
    variables: dict[str, str]
    words: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One tour. `home` is the HOME of all that runs, None for a throw-away one."""

    alice: Identity
    bob: Identity
    question: str
    limit_s: float
    runtimes_dir: Path
    home: Path | None
    login: Login | None = None

    @property
    def agents(self) -> tuple[Identity, Identity]:
        """Return both agents, the one that is asked first."""
        return self.alice, self.bob

    @property
    def is_scripted(self) -> bool:
        """Tell whether the agents are the bundled demo agent."""
        return self.alice.runtime == DEMO


def make_plan(runtime: str, environ: Mapping[str, str]) -> Plan:
    """Return the plan for a runtime, the user's own manifests counted in.

    Raises RuntimeUnknown naming the runtimes an agent can run on, ConfigError.
    """
    # Of the user's settings only these places matter here: port, bearer and limits do not.
    places = (env.HOME, env.ROOT, env.RUNTIMES_DIR)
    settings = make_settings({name: environ[name] for name in places if name in environ})
    catalog = Catalog.load(settings.runtimes_dir)
    agentic = [name for name in catalog.ids() if catalog.get(name).kind == "tui"]
    if runtime not in agentic:
        raise RuntimeUnknown(f"no agent runtime {runtime!r} here; there is: {', '.join(agentic)}")
    scripted = runtime == DEMO
    return Plan(
        alice=Identity(runtime, "alice"),
        bob=Identity(runtime, "bob"),
        question=_SCRIPTED if scripted else _PLAIN_WORDS,
        limit_s=_SCRIPTED_S if scripted else _REAL_S,
        runtimes_dir=settings.runtimes_dir,
        # A real agent's login lives in the user's HOME.
        home=None if scripted else settings.home,
    )
