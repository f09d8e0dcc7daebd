"""Public test helpers: a pytest plugin with private tmux servers and a daemon fixture."""
