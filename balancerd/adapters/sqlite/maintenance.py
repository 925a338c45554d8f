"""What keeps a ledger small and recoverable: retention, and a verified backup a day."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from balancerd.adapters.sqlite import audit
from balancerd.adapters.sqlite.database import Database, broken
from balancerd.core.units import DAY

BACKUPS = 7
_BATCH = 500  # rows deleted in one transaction, so that nobody waits long

# What is deleted; ":before" is the time up to which. What is still open stays, and so does what
# deciding rests on: the newest power event of each host and state, the newest sleep of each host. A
# conclusion goes with its intent, never before it, which would then pass for an open one.
_PRUNED = (
    ("cycles", "at < :before"),
    ("plans", "at < :before AND state NOT IN ('proposed', 'running')"),
    (
        "intents",
        "id IN (SELECT intent FROM conclusions WHERE at < :before) AND id NOT IN"
        " (SELECT max(id) FROM intents WHERE kind = 'sleep' GROUP BY host)",
    ),
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
    """A verified copy beside the file, where there is none of this day (UTC) yet; its path."""
    directory = _backups(database.path)
    with broken(directory):
        directory.mkdir(exist_ok=True)
        copy = directory / f"{database.path.stem}-{datetime.fromtimestamp(now, UTC):%Y-%m-%d}.db"
        if copy.exists():
            return None
        database.copy_to(copy)
        for old in _copies(database.path)[:-BACKUPS]:
            old.unlink()
    return copy


def newest_backup(path: Path) -> Path | None:
    """The newest copy of a ledger's file, if there is one."""
    copies = _copies(path)
    return copies[-1] if copies else None


def backed_up_at(path: Path) -> float:
    """When a ledger's file was last copied; 0 if never."""
    copy = newest_backup(path)
    with broken(_backups(path)):
        return copy.stat().st_mtime if copy else 0.0


def _backups(path: Path) -> Path:
    return path.parent / "backups"


def _copies(path: Path) -> list[Path]:
    """All copies, oldest first."""
    return sorted(_backups(path).glob(f"{path.stem}-*.db"))
