"""One vocabulary for what came of a send: the CLI, MCP and HTTP all render these."""

from __future__ import annotations

from typing import Any

import msgspec

from .states import DELIVERED, HoldReason, MessageState


class SendResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the sender is told about one accepted message.

    `personality`/`runtime` name the accepting identity, `ts` is the moment of acceptance (local
    ISO-8601 with offset, seconds), `woke` says that this wait saw the session being started.
    """

    message_id: str
    personality: str
    runtime: str
    state: MessageState
    ts: str
    reason: str = ""
    woke: bool = False
    repeated: bool = False
    queue_depth: int = 0

    @property
    def delivered(self) -> bool:
        """True only for `landed` or better: the one place that may say delivered."""
        return self.state in DELIVERED

    def to_json(self) -> dict[str, Any]:
        """Return the tool result in the contract's shape, plus our additive keys."""
        body: dict[str, Any] = {
            "ok": True,
            "delivered_to": {"personality": self.personality, "runtime": self.runtime},
            "woke": self.woke,
            "ts": self.ts,
            "message_id": self.message_id,
            "state": self.state.value,
        }
        if not self.delivered:
            body["queued"] = True
            body["reason"] = self.reason
            body["queueDepth"] = self.queue_depth
            if self.reason == HoldReason.COMPOSER:
                body["queuedBy"] = "composer"
        if self.repeated:
            body["repeated"] = True
        return body
