"""Programs that live on the public API only."""
