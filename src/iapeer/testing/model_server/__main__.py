"""`python -m iapeer.testing.model_server`: print the address, serve until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from iapeer.core.errors import ConfigError

from .rules import Script
from .script import load_script
from .server import ModelServer


def main(argv: list[str] | None = None) -> int:
    """Serve; exit status 0 when told to stop, 1 without the port, 2 for a bad script."""
    parser = argparse.ArgumentParser(prog="python -m iapeer.testing.model_server")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--script", type=Path, help="TOML file of rules; without it: always ok")
    found = parser.parse_args(argv)
    try:
        script = load_script(found.script) if found.script is not None else Script()
        asyncio.run(_serve(ModelServer(script, port=found.port)))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except (OSError, OverflowError) as error:
        print(f"can't listen on port {found.port}: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(model: ModelServer) -> None:
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    async with model:
        print(model.url, flush=True)
        await told.wait()


if __name__ == "__main__":
    sys.exit(main())
