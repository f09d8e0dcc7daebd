"""What one run is asked to do, and the small settings that make it quick."""

from __future__ import annotations

from typing import Literal

import msgspec

DiskMeans = Literal["auto", "tmpfs", "rlimit"]


class ChaosOptions(msgspec.Struct, frozen=True, kw_only=True):
    """One run.

    `seconds` bounds the part in which things are killed; what is not done by then is left out.
    `disk` says how the disk is filled: a small file system of its own (needs root on Linux), or a
    limit on the size of the daemon's files. `keep` copies history, ledger and logs aside before
    the root is removed.
    """

    messages: int = 5000
    kills: int = 300
    seed: int = 1
    seconds: float = 3600.0
    settle_s: float = 120.0
    senders: int = 8
    command_senders: int = 1
    mcp_senders: int = 2
    agents: int = 5
    inboxes: int = 2
    disk: DiskMeans = "auto"
    keep: bool = False


SETTINGS: dict[str, float | int] = {
    "boot_limit": 4,
    "boot_backoff_s": 0.05,
    "boot_backoff_max_s": 0.5,
    "boots_before_broken": 1000,
    "audit_s": 2.0,
    "evidence_s": 2.0,
    "submit_ms": 1000,
    "wait_live_s": 1.0,
    "wait_waking_s": 3.0,
    "notice_coalesce_s": 0.5,
}
"""The daemon's `iapeer.toml`: the defaults suit people, these suit a run of minutes."""

AGENT_ENV: tuple[dict[str, str], ...] = (
    {},
    {"DEMO_MISBEHAVE": "no_hook"},
    {"DEMO_GHOST": "1"},
    {"DEMO_MISBEHAVE": "slow_start=1"},
    {"DEMO_MISBEHAVE": "dialog,no_hook"},
)
"""Agents differ, in turn: evidence by hook and record or by record only, late or asking first."""
