"""Doors: how a text gets into a runtime. One module per door."""
