"""How a program learns where the simulated model is, and what the model is told to do.

The known CLIs have their set-up in `iapeer.testing.agents.users`; for any other one the caller
gives variables and files, in which `{model_url}` stands for the address without a path.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iapeer.core.errors import IapeerError, InvalidInput
from iapeer.runtimes.spec import RuntimeSpec
from iapeer.testing.agents.users import User, user_of
from iapeer.testing.model_server import Call, Fail, RecordedRequest, Rule, Say, Slow

MODEL_URL = "{model_url}"
_VERSION = re.compile(r"\d+\.\d+[0-9A-Za-z.+-]*")
_SEARCH = re.compile(r"tool_?search", re.IGNORECASE)
_VERSION_S = 30.0
"""Node programs need seconds for their version on a cold disk."""
_CHUNK_S = 0.1
_CHUNK_CHARS = 16
"""The simulator's default."""

_FAIL_TIMES = 3
"""Then the error is one that no program tries again: some would do so for minutes."""


class ProgramMissing(IapeerError):
    """The program that the manifest names is not on PATH."""

    code = "program_missing"


@dataclass(frozen=True)
class Subject:
    """What is examined, and what the caller knows about it.

    `path` is put before PATH. `variables` and `home_files` (by path below HOME) come over those
    of a known CLI. `runtimes_dir` holds manifests besides the shipped ones.
    """

    runtime: str
    path: Path | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    home_files: Mapping[str, str] = field(default_factory=dict)
    runtimes_dir: Path | None = None

    @property
    def has_model(self) -> bool:
        """Whether anything tells the program where the model is."""
        known = user_of(self.runtime, MODEL_URL) != User()
        return known or bool(self.variables or self.home_files)

    def user(self, url: str) -> User:
        """Return the made-up person's set-up for a model at `url`."""
        known = user_of(self.runtime, url)
        files = {name: text.replace(MODEL_URL, url) for name, text in self.home_files.items()}
        variables = {name: text.replace(MODEL_URL, url) for name, text in self.variables.items()}
        return User(files={**known.files, **files}, variables={**known.variables, **variables})

    def search_path(self) -> str:
        """Return the PATH that the daemon gets."""
        inherited = os.environ.get("PATH", os.defpath)
        return f"{self.path.absolute()}{os.pathsep}{inherited}" if self.path else inherited

    def program(self, spec: RuntimeSpec) -> str:
        """Return the program of a manifest, an absolute path; its argv[0] for a placeholder.

        Raises ProgramMissing, and InvalidInput for a runtime that starts no program.
        """
        if spec.kind != "tui" or not spec.launch.argv:
            raise InvalidInput(
                f"runtime {spec.id!r} is a {spec.kind}: there is no terminal program to examine"
            )
        name = spec.launch.argv[0]
        if "{" in name:
            return name
        found = shutil.which(name, path=self.search_path())
        if found is None:
            raise ProgramMissing(
                f"there is no program {name!r} on PATH", hint="name its folder: --path <folder>"
            )
        return str(Path(found).absolute())


def version_of(program: str, environ: Mapping[str, str], spec: RuntimeSpec) -> str:
    """Return what `<program> --version` says, empty when it says no number.

    A program that comes with iapeer has the version its manifest was tested with.
    """
    if "{" in program:
        return spec.tested.versions[0] if spec.tested.versions else ""
    try:
        done = subprocess.run(
            [program, "--version"],
            env=dict(environ),
            cwd=environ["HOME"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_VERSION_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = _VERSION.search(done.stdout) or _VERSION.search(done.stderr)
    return found.group() if found else ""


def slow(seconds: int) -> str:
    """Return the line that makes a turn take about so long."""
    return f"SLOW {seconds}"


def send(peer: str, text: str, request: RecordedRequest | None = None) -> str:
    """Return the line that makes the reader send a text to a peer.

    Some programs show a model their other tools only when it searches for them: what they offer
    stands in an earlier `request`.
    """
    line = f"SEND {peer} {text}"
    offered = _tools(json.loads(request.body)) if request is not None else []
    if any(name.endswith("send_to_peer") for name, _ in offered):
        return line
    search = next((name for name, _ in offered if _SEARCH.fullmatch(name)), None)
    return f'FIND {search} {{"query": "send_to_peer"}} AND {line}' if search else line


def call(tool: str, args: Mapping[str, Any]) -> str:
    """Return the line that makes the model call one of its own tools."""
    return f"CALL {tool} {json.dumps(args)}"


API_ERROR = "APIERROR"
"""The line that makes the model fail."""


def rules(durations: Iterable[int]) -> tuple[Rule, ...]:
    """Return what the model does with these lines; the demo agent knows the same but `CALL`."""
    return (
        *(_slow(seconds) for seconds in durations),
        Rule(
            r"(?m)^SEND (\S+) (.*)$",
            (Call("send_to_peer", {"personality": "$1", "message": "$2"}), Say("sent")),
        ),
        Rule(
            r"(?m)^FIND (\w+) (\{.*\}) AND SEND (\S+) (.*)$",
            (
                Call("$1", "$2"),
                Call("send_to_peer", {"personality": "$3", "message": "$4"}),
                Say("found and sent"),
            ),
        ),
        Rule(r"(?m)^CALL (\w+) (\{.*\})$", (Call("$1", "$2"), Say("called"))),
        Rule(
            rf"(?m)^{API_ERROR}$",
            (Fail(status=429, retry_after=1, times=_FAIL_TIMES), Fail(status=400)),
        ),
    )


def _slow(seconds: int) -> Rule:
    chunks = round(seconds / _CHUNK_S)
    text = "word after word, " * (chunks * _CHUNK_CHARS // 17)
    return Rule(rf"(?m)^{slow(seconds)}$", (Slow(_CHUNK_S), Say(text)))


def shell_call(request: RecordedRequest, command: str) -> str | None:
    """Return the line that makes the model run a command, None when no tool here does that.

    The tool is found by what it takes: a string called `command` or `cmd`.
    """
    for name, schema in _tools(json.loads(request.body)):
        properties = schema.get("properties") or {}
        key = next((k for k in ("command", "cmd") if _type(properties.get(k)) == "string"), None)
        if key is not None:
            needed = schema.get("required") or ()
            args = {k: _plain(properties.get(k)) for k in needed if k in properties}
            return call(name, {**args, key: command})
    return None


def _tools(body: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return name and schema of each offered function, whatever the protocol."""
    found = []
    for tool in body.get("tools") or ():
        about = tool.get("function") or tool
        schema = about.get("parameters") or about.get("input_schema")
        if isinstance(schema, dict) and "name" in about:
            found.append((str(about["name"]), schema))
    return found


def _type(schema: object) -> object:
    return schema.get("type") if isinstance(schema, Mapping) else None


def _plain(schema: object) -> object:
    values: Mapping[object, object] = {"boolean": False, "number": 5000, "integer": 5000}
    return values.get(_type(schema), "wait a moment")
