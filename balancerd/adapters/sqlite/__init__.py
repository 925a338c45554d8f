"""The record on disk: `ledger.db` and `samples.db` in one directory."""
