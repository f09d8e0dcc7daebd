"""The lanes: one actor per identity, and the steps it takes."""
