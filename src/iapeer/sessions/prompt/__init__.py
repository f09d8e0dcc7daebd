"""The system prompt of an agent session: which layers it has, and how they become one file."""
