"""The public pytest plugin."""
