"""The audit: a chain of events in which no line can be changed or left out unseen.

Each event's hash is SHA-256 of the hash before it and of the event itself in one fixed form. The
newest is kept once more, so that no end is cut off unseen either. The triggers of the schema stop
mistakes; the chain shows intent. Whoever can write the file can make a whole new chain, so the
newest hash belongs into another place (the system's log) once a day.
"""

import hashlib
import json
from dataclasses import dataclass

from balancerd.adapters.sqlite.database import Database

GENESIS = "0" * 64


def seal(previous: str, event: int, at: float, kind: str, subject: str, detail: str) -> str:
    """The hash of an event that follows another one."""
    line = json.dumps([event, at, kind, subject, detail], ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(f"{previous}\n{line}".encode()).hexdigest()


def head(database: Database) -> tuple[int, str]:
    """Number and hash of the newest event that was ever written."""
    row = database.row("SELECT id, hash FROM event_head")
    return (row[0], row[1]) if row else (0, GENESIS)


def append(database: Database, at: float, kind: str, subject: str, detail: str) -> int:
    """Add an event at the end of the chain; its number."""
    with database.transaction():
        last, previous = head(database)
        at = float(at)  # as it will be read back
        digest = seal(previous, last + 1, at, kind, subject, detail)
        database.execute(
            "INSERT INTO events (id, at, kind, subject, detail, hash) VALUES (?, ?, ?, ?, ?, ?)",
            (last + 1, at, kind, subject, detail, digest),
        )
    return int(last) + 1


def prune(database: Database, before: float, now: float) -> None:
    """Drop the events before a time, and anchor the chain where the rest of it begins."""
    newer = database.row("SELECT min(id) FROM events WHERE at >= ?", (before,))
    last = newer[0] - 1 if newer and newer[0] else head(database)[0]
    row = database.row("SELECT hash FROM events WHERE id = ?", (last,))
    if row is None:
        return
    with database.transaction():
        append(database, now, "audit", "events", f"lines up to {last} are past their retention")
        database.insert("event_anchors", {"up_to": last, "hash": row[0], "at": now})
        database.execute("DELETE FROM events WHERE id <= ?", (last,))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a look through the whole audit found. `fault`: "" when every line is as it was."""

    events: int
    head: str  # the newest hash, to be compared with one that was kept elsewhere
    fault: str = ""


def verify(database: Database) -> Verdict:
    """Follow the chain from its beginning, or from where old lines were dropped."""
    newest, sealed = head(database)  # first: others may go on writing meanwhile
    anchor = database.row("SELECT up_to, hash FROM event_anchors ORDER BY up_to DESC LIMIT 1")
    last, previous = (anchor[0], anchor[1]) if anchor else (0, GENESIS)
    count = 0
    for row in database.stream(
        "SELECT id, at, kind, subject, detail, hash FROM events ORDER BY id"
    ):
        event, digest = row[0], row[5]
        if event != last + 1:
            fault = f"event {last + 1} is missing"
        elif seal(previous, *tuple(row)[:5]) != digest:
            fault = f"event {event} or the one before it was changed"
        elif event == newest and digest != sealed:
            fault = f"event {event} is not the one that was written"
        else:
            last, previous, count = event, digest, count + 1
            continue
        return Verdict(count, previous, fault)
    cut = f"the last line is event {last}, but event {newest} was written" if last < newest else ""
    return Verdict(count, previous, cut)
