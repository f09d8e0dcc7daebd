"""The ledger: every accepted message, its history, sessions, deaths and marks in one SQLite file.

`messages`, `sessions` and `marks` are plain functions that run inside a transaction;
`store.Ledger` runs them for the daemon, `offline.offline` for any other process.
"""
