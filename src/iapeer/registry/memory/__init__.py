"""Memory: the slot of a provider, the agents' own memory, and what their configuration is told."""
