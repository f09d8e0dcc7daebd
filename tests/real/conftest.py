"""The frame of the gate `make test-real`: the real agent CLIs against a simulated model.

What a test may ask for, each made anew for it:

* `agent_binaries`: `agent_binaries["claude"]` is the pinned program. Not installed: the test is
  skipped with the reason, in CI it fails.
* `rules`: what the model does; a test file has its own by a fixture of that name, one test by
  `@pytest.mark.parametrize("rules", [[...]])`.
* `model`: a `SimulatedModel` that follows `rules`; `model.url`, `model.requests`, `model.wait_for`.
* `agent_home`: the HOME of a made-up person who has set up and logged into every CLI, at the model.
* `agent_environ`: a clean environment in which the CLIs can be run directly, without iapeer.
* `real_daemon`: an `AgentDaemon` in that HOME with our programs first on PATH, not yet started:

      real_daemon.create("ann", runtime="claude")
      real_daemon.create("me", runtime="api")
      real_daemon.start()
      sent = real_daemon.send("ann", "hello", "api-me")
      asked = model.wait_for(lambda r: r.has_tools and "hello" in r.user_texts[-1])
      real_daemon.wait_state(sent["message_id"], "seen")

  CLIs also ask for titles and the like, with the same text in it: those requests have no tools.
  `real_daemon.set_variables("ann", "claude", NAME="value")` writes the peer's `launch.env` anew.

Every test here has the marker `real`; those with `extra` too belong to `make test-real-all`. After
each test no process with its HOME may be left (give agents time to end by stopping them, not by
sleeping); what is left is killed, named, and fails the test.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from iapeer.testing.agents import AgentDaemon, SimulatedModel, load_pins, locate
from iapeer.testing.agents.__main__ import in_ci
from iapeer.testing.agents.errors import NotForThisMachine, NotInstalled
from iapeer.testing.agents.install import CACHE
from iapeer.testing.agents.users import move_in, user_environ
from iapeer.testing.leaks import wait_for_none
from iapeer.testing.model_server import Call, Fail, Rule, Say, Script, Slow

HERE = Path(__file__).parent
PROJECT = HERE.parents[1]

RULES = (
    # `CALL <tool> <JSON>` anywhere on a line of the text: the model calls it, then is done.
    Rule(r"(?m)\bCALL (\w+) (\{.*\})", (Call("$1", "$2"), Say("done"))),
    Rule(r"\bSLOWLY\b", (Slow(0.2), Say("one word after the other, and each takes its time"))),
    Rule(r"\bLIMITED\b", (Fail(status=429, retry_after=1, times=1), Say("after the limit"))),
)
"""What the model does when a test says nothing else; to any other text it says `ok`."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything of this folder, before `-m` is looked at."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.real)


class AgentBinaries(Mapping[str, Path]):
    """The installed agents by name; asking for one that is not there ends the test."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache

    def __getitem__(self, name: str) -> Path:
        try:
            return locate(name, self._cache)
        except (NotInstalled, NotForThisMachine) as error:
            if in_ci(os.environ):
                pytest.fail(f"gate not run: {error}", pytrace=False)
            pytest.skip(str(error))

    def __contains__(self, name: object) -> bool:
        return name in self.installed()

    def __iter__(self) -> Iterator[str]:
        return iter(self.installed())

    def __len__(self) -> int:
        return len(self.installed())

    def installed(self) -> dict[str, Path]:
        """Return those that are there."""
        found = {}
        for name in load_pins():
            try:
                found[name] = locate(name, self._cache)
            except (NotInstalled, NotForThisMachine):
                continue
        return found


@pytest.fixture(scope="session")
def agent_binaries() -> AgentBinaries:
    return AgentBinaries(PROJECT / CACHE)


@pytest.fixture(scope="session")
def agent_path(agent_binaries: AgentBinaries, tmp_path_factory: pytest.TempPathFactory) -> str:
    """PATH with the installed agents under their commands' names first."""
    folder = tmp_path_factory.mktemp("bin")
    for name, program in agent_binaries.installed().items():
        (folder / load_pins()[name].command).symlink_to(program)
    return f"{folder}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


@pytest.fixture
def empty_home() -> Iterator[Path]:
    """A short path: programs put sockets below their HOME."""
    home = Path(tempfile.mkdtemp(prefix="iah", dir="/tmp")).resolve()
    yield home
    shutil.rmtree(home)


@pytest.fixture(autouse=True)
def no_process_left(empty_home: Path) -> Iterator[None]:
    """Set up before everything that starts a process, so looked at after all of it has ended."""
    yield
    left = wait_for_none(empty_home)
    if left:
        pytest.fail("the test left processes (killed now):\n" + "\n".join(left), pytrace=False)


@pytest.fixture
def rules() -> Script | Iterable[Rule]:
    return RULES


@pytest.fixture
def model(rules: Script | Iterable[Rule]) -> Iterator[SimulatedModel]:
    with SimulatedModel(rules) as running:
        yield running


@pytest.fixture
def agent_home(empty_home: Path, model: SimulatedModel) -> Path:
    move_in(empty_home, model.url)
    return empty_home


@pytest.fixture
def agent_environ(agent_home: Path, agent_path: str, model: SimulatedModel) -> dict[str, str]:
    return user_environ(agent_home, agent_path, *load_pins(), url=model.url)


@pytest.fixture
def real_daemon(
    no_process_left: None, agent_home: Path, agent_path: str, model: SimulatedModel
) -> Iterator[AgentDaemon]:
    daemon = AgentDaemon.at(agent_home, agent_path, model.url)
    yield daemon
    daemon.clean_up()
