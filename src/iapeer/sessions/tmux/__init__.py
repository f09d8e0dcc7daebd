"""The only modules that run tmux: `server` is the way in, the others are its parts."""
