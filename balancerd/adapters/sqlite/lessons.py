"""What the migrations on record teach: read once, then kept up with each conclusion."""

import json
from math import inf
from sqlite3 import Row

from balancerd.adapters.sqlite.database import Database
from balancerd.core.files.codec import decode, encode, from_milliseconds
from balancerd.core.lessons import Basis, Lesson, Lessons
from balancerd.core.outcome import Outcome
from balancerd.core.past.record import Conclusion, IntentKind

READ_AT_MOST = 5000  # migrations; what is older has faded anyway


def to_text(basis: Basis) -> str:
    """A prediction's basis as the ledger keeps it."""
    return json.dumps(encode(basis), separators=(",", ":"))


def basis_of(text: str) -> Basis:
    """The basis that the ledger kept."""
    found: Basis = decode(Basis, json.loads(text))
    return found


class PastLessons:
    """The lessons of all migrations that were done, the oldest first."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lessons: Lessons | None = None
        self._new: list[Lesson] = []  # not taken in yet
        self._rollbacks = 0

    def add(self, intent: Row, conclusion: Conclusion) -> None:
        """Take in a migration that was concluded just now."""
        done = conclusion.outcome is Outcome.DONE and not conclusion.adopted
        if self._lessons is None or not done or intent["kind"] != IntentKind.MIGRATE:
            return
        actual = (conclusion.seconds, conclusion.bytes, conclusion.downtime)
        names = (intent["vm"], intent["method"], intent["basis"])
        self._new.append(_lesson(*names, *actual))

    def now(self) -> Lessons:
        """All lessons up to now."""
        if self._lessons is None or self._rollbacks != self._database.rollbacks:
            self._rollbacks = self._database.rollbacks
            self._lessons, self._new = lessons_until(self._database, inf), []
        if self._new:
            self._lessons, self._new = self._lessons.after(*self._new), []
        return self._lessons


def lessons_until(database: Database, until: float) -> Lessons:
    """All lessons of migrations that ended by a time."""
    rows = database.rows(
        "SELECT vm, method, basis, conclusions.seconds, conclusions.bytes,"
        " conclusions.downtime_ms FROM conclusions JOIN intents ON intents.id = intent"
        " WHERE kind = 'migrate' AND outcome = 'done' AND NOT adopted AND conclusions.at <= ?"
        " ORDER BY conclusions.id DESC LIMIT ?",
        (until, READ_AT_MOST),
    )
    return Lessons().after(*map(_lesson_of, reversed(rows)))


def _lesson_of(row: Row) -> Lesson:
    vm, method, basis, seconds, sent, downtime = row
    paused = None if downtime is None else from_milliseconds(downtime)
    return _lesson(vm, method, basis, seconds, sent, paused)


def _lesson(
    vm: str,
    method: str | None,
    basis: str,
    seconds: float | None,
    sent: int | None,
    downtime: float | None,
) -> Lesson:
    """One migration's lesson; a figure that was not told teaches nothing."""
    rests = basis_of(basis)
    figures = {
        "seconds": (rests.model_seconds, seconds or 0.0),
        "bytes": (rests.model_bytes, float(sent or 0)),
        "downtime": (rests.model_downtime, downtime or 0.0),
    }
    return Lesson(vm, method or "", rests.link, figures)
