"""The tour with real agent CLIs and a model that is a script: no account, no network.

    python -m iapeer.testing.simulated_tour claude

Installs the pinned CLI into the project's cache if it is not there, and shows it at work in a
throw-away HOME; no CLI, login or configuration of this machine is used.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from iapeer.apps.tour.__main__ import main as play
from iapeer.apps.tour.plan import Login, make_plan
from iapeer.core.errors import IapeerError
from iapeer.testing.agents.install import CACHE, Installer
from iapeer.testing.agents.simulated import SimulatedModel
from iapeer.testing.agents.users import move_in, user_of
from iapeer.testing.model_server import Call, Rule, Say

RULES = (
    Rule(
        when=r'(?s)from="you".*ask bob',
        then=(
            Call(
                "send_to_peer",
                {"personality": "bob", "message": "What is your favourite prime number?"},
            ),
            Say("I have asked bob."),
        ),
    ),
    Rule(
        when=r'(?s)from="alice".*favourite prime number\?',
        then=(
            Call("send_to_peer", {"personality": "alice", "message": "It is 7919."}),
            Say("I have told alice."),
        ),
    ),
    Rule(
        when=r'(?s)from="bob".*7919',
        then=(
            Call(
                "send_to_peer",
                {"personality": "you", "message": "Bob's favourite prime number is 7919."},
            ),
            Say("I have told you."),
        ),
    ),
    Rule(when=".", then=(Say("I have nothing to do."),)),
)
"""What the model of both agents answers to the tour's question."""
LIMIT_S = 60.0
"""A scripted model answers at once; the CLIs boot within some seconds."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one tour on the simulator and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="iapeer.testing.simulated_tour", description="Watch real agents talk, offline."
    )
    parser.add_argument("runtime", choices=("claude", "codex"))
    runtime = parser.parse_args(argv).runtime
    try:
        program = Installer(CACHE, print).install(runtime)
        plan = make_plan(runtime, os.environ)
    except IapeerError as error:
        hint = f"\nhint: {error.hint}" if error.hint else ""
        print(f"iapeer demo: {error.message}{hint}", file=sys.stderr)
        return 1
    with (
        tempfile.TemporaryDirectory(prefix="iapeer-demo-home-", dir="/tmp") as home,
        SimulatedModel(RULES) as model,
    ):
        move_in(Path(home), model.url)
        login = Login(
            program_dir=program.parent,
            variables=dict(user_of(runtime, model.url).variables),
            words="real agents, a scripted model: no account, no network",
        )
        plan = msgspec.structs.replace(plan, home=Path(home), login=login, limit_s=LIMIT_S)
        return play([runtime], plan=plan)


if __name__ == "__main__":
    sys.exit(main())
