"""Why a session died: what can be found out at that moment, and what it means."""
