"""A daemon whose peers are real agent CLIs that talk to a simulator."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from iapeer.storage.atomic import write_text
from iapeer.storage.paths import Paths, launch_env_path
from iapeer.testing.daemon import TestDaemon

from .users import move_in, user_of


@dataclass
class AgentDaemon(TestDaemon):
    """A `TestDaemon` whose `create` also gives a peer the login of its HOME's made-up person.

    `model_url` is where the model is. The variables go into the peer's `launch.env`: the daemon
    keeps `CLAUDE*` and `CODEX*` of its own environment from every session.
    """

    model_url: str = ""

    @classmethod
    def at(cls, home: Path, path: str, model_url: str) -> AgentDaemon:
        """Make one on a root of its own in a given HOME, which is moved into; `path` is PATH."""
        move_in(home, model_url)
        made = cls.make(HOME=str(home), PATH=path)
        assert isinstance(made, cls)
        made.model_url = model_url
        return made

    def create(self, *names: str, runtime: str = "demo") -> None:
        """Register peers of one runtime."""
        super().create(*names, runtime=runtime)
        for name in names:
            self.set_variables(name, runtime)

    def set_variables(
        self, name: str, runtime: str, *, start_args: Iterable[str] = (), **variables: str
    ) -> None:
        """Write a peer's `launch.env` anew: the person's variables, and more over them."""
        values = dict(user_of(runtime, self.model_url).variables) | variables
        words = " ".join(start_args)
        if words:
            values["PEER_START_ARGS"] = words
        if not values:
            return
        path = launch_env_path(Paths(self.root).peer_home(name), runtime)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, "".join(f"{key}={value}\n" for key, value in values.items()))
