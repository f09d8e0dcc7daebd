from __future__ import annotations
import pytest, time
from iapeer.testing.agents import AgentDaemon, SimulatedModel
pytestmark = pytest.mark.timeout(200)

@pytest.mark.parametrize("runtime", ["opencode", "qwen"])
def test_peer(runtime: str, real_daemon: AgentDaemon, model: SimulatedModel, agent_binaries) -> None:
    agent_binaries[runtime]
    real_daemon.create("eve", runtime=runtime)
    real_daemon.create("me", runtime="api")
    real_daemon.start()
    try:
        sent = real_daemon.send("eve", "hello * there\n* bullet\n/help", "api-me")
        print("SENT", sent)
        asked = model.wait_for(lambda r: r.has_tools and any("bullet" in t for t in r.user_texts), 90)
        print([t[:400] for t in asked.user_texts][-1])
        print([t.name for t in asked.ask.tools])
        time.sleep(3)
        r2 = real_daemon.send("eve", 'CALL send_to_peer {"to": "nobody", "message": "hi"}' if runtime=="opencode" else 'CALL tool_search {"query": "select:mcp__iapeer__send_to_peer"}', "api-me")
        print("SENT2", r2)
        time.sleep(6)
        for r in model.requests[-4:]: print(r.has_tools, [(e.kind, e.text[:150]) for e in (r.ask.entries if r.ask else ())][-2:])
    finally:
        import subprocess
        for p in real_daemon.root.rglob('*.log'):
            print('==', p); print(p.read_text()[-2500:])
