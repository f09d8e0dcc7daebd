"""Edges of the daemon: listeners, HTTP verbs, MCP, authentication."""
