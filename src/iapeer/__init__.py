"""iapeer: a team of AI agents, people and services, each a single message away."""

__version__ = "0.1.0"
