"""To whom and in what order: accept, lanes, waits."""
