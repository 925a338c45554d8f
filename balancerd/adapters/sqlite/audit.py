"""The audit: a chain of events in which no line can be changed or left out unseen.

Each event's hash is SHA-256 of the hash before it and of the event itself in one fixed form. The
triggers of the schema stop mistakes; the chain shows intent. Whoever can write the file can make
a whole new chain, so the newest hash belongs into another place (the system's log) once a day.
"""

import hashlib
import json

from balancerd.adapters.sqlite.database import Database

GENESIS = "0" * 64


def seal(previous: str, event: int, at: float, kind: str, subject: str, detail: str) -> str:
    """The hash of an event that follows another one."""
    line = json.dumps([event, at, kind, subject, detail], ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(f"{previous}\n{line}".encode()).hexdigest()


def head(database: Database) -> tuple[int, str]:
    """Number and hash of the newest event; of the anchor where all events were dropped."""
    row = database.row("SELECT id, hash FROM events ORDER BY id DESC LIMIT 1")
    row = row or database.row("SELECT up_to, hash FROM event_anchors ORDER BY up_to DESC LIMIT 1")
    return (row[0], row[1]) if row else (0, GENESIS)


def append(database: Database, at: float, kind: str, subject: str, detail: str) -> None:
    """Add an event at the end of the chain."""
    with database.transaction():
        last, previous = head(database)
        at = float(at)  # as it will be read back
        digest = seal(previous, last + 1, at, kind, subject, detail)
        database.execute(
            "INSERT INTO events (id, at, kind, subject, detail, hash) VALUES (?, ?, ?, ?, ?, ?)",
            (last + 1, at, kind, subject, detail, digest),
        )
