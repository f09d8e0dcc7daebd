"""The MCP surface: streamable HTTP without sessions, JSON answers, exactly one tool.

`protocol` is what goes over the wire and which versions of it we speak, `endpoint` answers a
POST, `tool` is `send_to_peer`. The official SDK's server does the same in 0.8 ms a call, 35 MiB
and 0.6 s of imports (measured: mcp 2.3); tests keep both giving the same answers.
"""
