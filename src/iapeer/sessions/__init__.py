"""How one session lives in tmux: launch, doors, evidence, death."""
