"""The real agent CLIs that the tests drive: pinned, verified, in a folder of the project.

    python -m iapeer.testing.agents install claude codex

puts them into `.cache/agents/<name>-<version>/`; `locate("claude")` is the program to run. Nothing
found on the machine is ever used instead, and no code of a package runs while it is installed.
Running a native CLI needs no node: npm is only what downloads it.

`SimulatedModel` is what they talk to, `AgentDaemon` a daemon that they are peers of, in the HOME
of a made-up person (`users`), and `leaks` finds the processes they leave.
"""

from __future__ import annotations

from .install import OVERRIDE, Installer, locate
from .peers import AgentDaemon
from .pins import Pin, Program, load_pins, pin_of
from .simulated import SimulatedModel

__all__ = [
    "OVERRIDE",
    "AgentDaemon",
    "Installer",
    "Pin",
    "Program",
    "SimulatedModel",
    "load_pins",
    "locate",
    "pin_of",
]
