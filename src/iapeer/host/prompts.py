"""Gives a launch its system prompt: everything a prompt depends on, gathered at that moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from iapeer.core import env
from iapeer.core.identity import Identity
from iapeer.registry.index import Registry
from iapeer.routing.lanes.services import LifecycleLog
from iapeer.storage.paths import Paths


def composer(
    paths: Paths, registry: Registry, environ: Mapping[str, str], log: LifecycleLog
) -> Callable[[Identity, Path], Path | None]:
    """Return what writes the prompt of one bring-up and tells its path, None for a bare session."""

    def compose(identity: Identity, cwd: Path) -> Path | None:
        from iapeer.sessions.prompt import compose as prompt  # noqa: PLC0415 - by the first launch
        from iapeer.sessions.prompt.sources import host_facts  # noqa: PLC0415 - as above

        def tell(problem: str) -> None:
            log("system-prompt", identity=identity.address, reason=problem)

        context = prompt.PromptContext(
            cwd=cwd,
            home=Path(environ.get(env.HOME) or "/"),
            records=tuple(registry.snapshot(allow_stale=True)),
            host=host_facts(environ),
            today=datetime.now().astimezone().date(),
        )
        return prompt.write_system_prompt(paths, identity, context, tell)

    return compose
