"""Files, locks and the SQLite ledger: the only layer that writes below the root."""
