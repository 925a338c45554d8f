"""What keeps a ledger small and recoverable: retention, and a verified backup a day."""

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from balancerd.adapters.sqlite import audit
from balancerd.adapters.sqlite.database import Database, broken, check_content
from balancerd.core.units import DAY

BACKUPS = 7
_BATCH = 5000  # rows deleted in one transaction, so that nobody waits long

# What is deleted; ":before" is the time up to which. What is still open stays, and the newest power
# event of each host and state: deciding rests on it. A conclusion goes with its intent, never
# before it, which would then pass for an open one.
_PRUNED = (
    ("cycles", "at < :before"),
    ("plans", "at < :before AND state NOT IN ('proposed', 'running')"),
    ("intents", "id IN (SELECT intent FROM conclusions WHERE at < :before)"),
    ("placements", "until_at < :before"),
    ("vms", "gone_at < :before AND name NOT IN (SELECT vm FROM placements)"),
    ("requests", "answered_at < :before"),
    ("pauses", "coalesce(ended_at, until_at) < :before"),
    ("drains", "until_at < :before"),
    (
        "power_events",
        "at < :before AND id NOT IN (SELECT max(id) FROM power_events GROUP BY host, power)",
    ),
)


@dataclass(frozen=True, slots=True)
class LedgerRetention:
    """How long the ledger remembers, in seconds. Snapshots are by far the largest."""

    records: float = 90 * DAY
    snapshots: float = 30 * DAY


RETENTION = LedgerRetention()


def prune(database: Database, now: float, retention: LedgerRetention) -> None:
    """Delete what is past its retention, and shorten the chain of the audit at its old end."""
    _delete(database, "snapshots", "at < :before", now - retention.snapshots)
    before = now - retention.records
    for table, condition in _PRUNED:
        _delete(database, table, condition, before)
    audit.prune(database, before, now)
    database.give_back()
    database.rows("PRAGMA wal_checkpoint(TRUNCATE)")


def _delete(database: Database, table: str, condition: str, before: float) -> None:
    statement = (
        f"DELETE FROM {table} WHERE rowid IN"
        f" (SELECT rowid FROM {table} WHERE {condition} LIMIT {_BATCH})"
    )
    while database.execute(statement, {"before": before}).rowcount == _BATCH:
        pass


def back_up(database: Database, now: float) -> Path | None:
    """A verified copy beside the file, where the newest one is a day old; its path.

    The copy is whole or it is not there: it gets its name after it was checked and is on disk.
    """
    directory = database.path.parent / "backups"
    with broken(directory):
        directory.mkdir(exist_ok=True)
        stem, day = database.path.stem, datetime.fromtimestamp(now, UTC)
        copy = directory / f"{stem}-{day:%Y-%m-%d}.db"
        if copy.exists():
            return None
        unfinished = copy.with_suffix(".unfinished")
        unfinished.unlink(missing_ok=True)
        database.rows("VACUUM INTO ?", (str(unfinished),))
        _verify(unfinished)
        unfinished.rename(copy)
        for old in sorted(directory.glob(f"{stem}-*.db"))[:-BACKUPS]:
            old.unlink()
    return copy


def _verify(copy: Path) -> None:
    with closing(sqlite3.connect(f"{copy.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        check_content(connection, copy)
    with copy.open("rb") as file:
        os.fsync(file.fileno())
