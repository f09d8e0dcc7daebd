"""The only module that knows names of files and folders, below the root and in a peer's folder."""

from __future__ import annotations

from pathlib import Path

PROFILE_NAME = "peer-profile.json"
REGISTRY_NAME = "peers-profiles.json"


class Paths:
    """Names below one root; makes nothing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.registry = root / REGISTRY_NAME
        self.registry_lock = root / "peers-profiles.lock"
        self.quarantine = root / "state" / "iapeer" / "quarantine"
        self.peers = root / "peers"
        self.settings_file = root / "iapeer.toml"
        self.state = root / "state" / "iapeer"
        self.lifecycle_state = root / "state" / "lifecycle"
        self.ledger = self.state / "ledger.db"
        self.discovery = self.state / "router.json"
        self.daemon_lock = self.state / "daemon.lock"
        self.stopped = self.state / "stopped"
        self.start_lock = self.state / "start.lock"
        self.pokes = self.state / "pokes"
        self.changes = self.state / "changes"
        self.run = self.state / "run"
        self.logs = root / "logs" / "iapeer"
        self.pane_logs = root / "logs" / "lifecycle"
        self.delivery_log = self.logs / "delivery.log"
        self.lifecycle_log = self.logs / "lifecycle.log"
        self.exits_log = self.logs / "exits.log"
        self.server_deaths = self.logs / "server-deaths"
        self.canaries = self.state / "canaries"
        self.canary_script = self.canaries / "canary.sh"
        self.runtimes = root / "runtimes"
        self.memory_slot = root / "memory-provider.json"

    def peer_home(self, personality: str) -> Path:
        """Return the default folder of a created peer."""
        return self.peers / personality

    def daemon_output(self, stamp: str) -> Path:
        """Return the file a daemon started on demand prints to."""
        return self.logs / f"daemon-{stamp}.log"

    def canary_mark(self, session_id: str) -> Path:
        """Return the pid file of the recorder of a session's server."""
        return self.canaries / f"{session_id}.pid"

    def canary_claim(self, session_id: str) -> Path:
        """Return the file whose maker writes how a session's program ended."""
        return self.canaries / f"{session_id}.exit"

    def pane_log(self, identity: str) -> Path:
        """Return what the pane of an identity printed, if that is kept."""
        return self.pane_logs / f"{identity}.log"

    def private_dirs(self) -> tuple[Path, ...]:
        """Return the folders a daemon needs, parents first; all 0700."""
        return (
            self.root,
            self.root / "state",
            self.state,
            self.run,
            self.pokes,
            self.canaries,
            self.lifecycle_state,
            self.root / "logs",
            self.logs,
            self.server_deaths,
            self.pane_logs,
        )


def peer_dir(cwd: Path) -> Path:
    """Return `<cwd>/.iapeer`."""
    return cwd / ".iapeer"


def profile_path(cwd: Path) -> Path:
    """Return the local profile of the peer that lives in `cwd`."""
    return peer_dir(cwd) / PROFILE_NAME


def launch_env_path(cwd: Path, runtime: str) -> Path:
    """Return the peer's own environment file for a runtime."""
    return peer_dir(cwd) / "runtimes" / runtime / "launch.env"


def peer_state_dir(cwd: Path, runtime: str) -> Path:
    """Return where a bundled runtime keeps its own records of that peer."""
    return peer_dir(cwd) / "state" / runtime
