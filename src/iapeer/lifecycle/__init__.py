"""When and whether a session runs: a pure rule table."""
