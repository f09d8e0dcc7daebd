"""The `iapeer` command: a table of verbs, each loaded when it is called."""
