"""What operators say through the ledger: pauses, requests, drains."""

import json
from sqlite3 import Row

from balancerd.adapters.sqlite import audit
from balancerd.adapters.sqlite.database import Database
from balancerd.core.files.codec import to_json
from balancerd.core.past.record import Pause, Request, Verb
from balancerd.core.units import counted, format_time
from balancerd.ports import LedgerError


def begin_pause(database: Database, pause: Pause) -> None:
    """Put a pause in force: when this returns, no intent can be written any more."""
    with database.transaction():
        database.insert(
            "pauses",
            {"at": pause.at, "by": pause.by, "reason": pause.reason, "until_at": pause.until},
        )
        until = "until resumed" if pause.until is None else f"until {format_time(pause.until)}"
        why = f": {pause.reason}" if pause.reason else ""
        audit.append(database, pause.at, "pause", pause.by, f"{until}{why}")


def end_pauses(database: Database, at: float, by: str) -> int:
    """End every pause that stands; how many did."""
    with database.transaction():
        ended = database.execute(
            "UPDATE pauses SET ended_at = ?, ended_by = ?"
            " WHERE ended_at IS NULL AND (until_at IS NULL OR until_at > ?)",
            (at, by, at),
        ).rowcount
        if ended:
            audit.append(database, at, "resume", by, f"{counted(ended, 'pause')} ended")
    return ended


def standing_pause(database: Database, now: float) -> Pause | None:
    """The pause that stands; of several the one that lasts longest."""
    row = database.row(
        "SELECT at, by, reason, until_at FROM pauses"
        " WHERE ended_at IS NULL AND (until_at IS NULL OR until_at > ?)"
        " ORDER BY until_at IS NULL DESC, until_at DESC, id DESC LIMIT 1",
        (now,),
    )
    return None if row is None else Pause(*row)


def ask(database: Database, request: Request) -> int:
    """Leave a request for the daemon; its id."""
    with database.transaction():
        number = database.insert(
            "requests",
            {
                "at": request.at,
                "verb": request.verb,
                "subject": request.subject,
                "by": request.by,
                "arguments": to_json(dict(request.arguments)),
            },
        )
        detail = f"request {number} by {request.by}: {request.verb} {request.subject}"
        audit.append(database, request.at, "request", request.subject, detail)
    return number


def unanswered(database: Database) -> tuple[Request, ...]:
    """Requests that wait for an answer, oldest first."""
    rows = database.rows("SELECT * FROM requests WHERE answered_at IS NULL ORDER BY id")
    return tuple(request_of(row) for row in rows)


def request_of(row: Row) -> Request:
    """The request of a row."""
    return Request(
        id=row["id"],
        at=row["at"],
        verb=Verb(row["verb"]),
        subject=row["subject"],
        by=row["by"],
        arguments=json.loads(row["arguments"]),
    )


def answer(database: Database, request: int, at: float, accepted: bool, detail: str) -> None:
    """Answer a request; LedgerError when it was answered before."""
    with database.transaction():
        answered = database.execute(
            "UPDATE requests SET answered_at = ?, accepted = ?, answer = ?"
            " WHERE id = ? AND answered_at IS NULL",
            (at, accepted, detail, request),
        ).rowcount
        if not answered:
            raise LedgerError(f"there is no request {request} that waits for an answer")
        row = database.row("SELECT verb, subject FROM requests WHERE id = ?", (request,))
        assert row is not None
        verdict = "accepted" if accepted else "refused"
        words = f"request {request}, {row['verb']} {row['subject']}, {verdict}: {detail}"
        audit.append(database, at, "answer", row["subject"], words)


def draining(database: Database) -> frozenset[str]:
    """Hosts that are drained now."""
    rows = database.rows("SELECT host FROM drains WHERE until_at IS NULL")
    return frozenset(host for (host,) in rows)


def set_draining(database: Database, host: str, wanted: bool, at: float) -> None:
    """Begin or end a drain; nothing changes when it is so already."""
    with database.transaction():
        if wanted == (host in draining(database)):
            return
        if wanted:
            database.insert("drains", {"host": host, "from_at": at})
        else:
            database.execute(
                "UPDATE drains SET until_at = ? WHERE host = ? AND until_at IS NULL", (at, host)
            )
        audit.append(database, at, "drain" if wanted else "undrain", host, "")
