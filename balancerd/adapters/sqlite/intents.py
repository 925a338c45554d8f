"""Intents and how they ended, and the memory of recent migrations."""

from bisect import insort
from math import inf
from operator import attrgetter, is_
from sqlite3 import Row

from balancerd.adapters.sqlite import audit
from balancerd.adapters.sqlite.database import Database
from balancerd.adapters.sqlite.lessons import basis_of, to_text
from balancerd.adapters.sqlite.proof import line_of
from balancerd.core.files.codec import from_milliseconds, to_milliseconds
from balancerd.core.model import Method
from balancerd.core.observation import JobReport
from balancerd.core.outcome import NEVER_BEGUN, Against, Outcome
from balancerd.core.past.history import REMEMBERED, PastMove
from balancerd.core.past.record import Conclusion, Intent, IntentKind
from balancerd.ports import LedgerError

_COLUMNS = (
    "kind, at, vm, uuid, host, target, method, reason, plan, action, bandwidth_bytes_per_s,"
    " autostart, target_defined, hand_over, predicted_seconds, predicted_bytes,"
    " predicted_downtime_ms, basis"
)
# One statement, so that a pause that is committed before it stops it, whoever commits it.
_INTEND = f"""INSERT INTO intents ({_COLUMNS})
    SELECT {", ".join("?" * 18)} WHERE NOT EXISTS (
        SELECT 1 FROM pauses WHERE ended_at IS NULL AND (until_at IS NULL OR until_at > ?))"""
_PROGRESS = """INSERT OR REPLACE INTO progress (intent, at, total_bytes, processed_bytes,
    remaining_bytes, iteration, elapsed_seconds, dirty_bytes_per_s, throttle_percent)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""


def intend(database: Database, intent: Intent) -> int | None:
    """Write an intent and its line of the audit; None while a pause stands."""
    values = (
        *(intent.kind, float(intent.at), intent.vm, intent.uuid, intent.host, intent.target),
        *(intent.method, intent.reason, intent.plan or None, intent.action or None),
        *(intent.bandwidth, intent.autostart, intent.target_defined, intent.hand_over),
        *(intent.predicted_seconds, intent.predicted_bytes),
        to_milliseconds(intent.predicted_downtime),
        to_text(intent.basis),
    )
    with database.transaction():
        cursor = database.execute(_INTEND, (*values, float(intent.at)))
        if cursor.rowcount != 1 or cursor.lastrowid is None:
            return None
        subject = intent.vm or intent.host
        detail = f"intent {cursor.lastrowid}: {sentence(intent)}"
        audit.append(database, intent.at, "intent", subject, detail)
        return cursor.lastrowid


def sentence(intent: Intent) -> str:
    """An intent in words."""
    why = f": {intent.reason}" if intent.reason else ""
    if intent.kind is not IntentKind.MIGRATE:
        return f"{intent.kind} {intent.host}{why}"
    how = f" ({intent.method})" if intent.method else ""
    how += ", to be resumed there once it is gone here" if intent.hand_over else ""
    return f"{intent.kind} {intent.vm} from {intent.host} to {intent.target}{how}{why}"


def conclude(database: Database, conclusion: Conclusion) -> Row:
    """Write how an intent ended, once; the intent's row."""
    with database.transaction():
        intent = database.row("SELECT * FROM intents WHERE id = ?", (conclusion.intent,))
        if intent is None:
            raise LedgerError(f"there is no intent {conclusion.intent} that could be concluded")
        known = database.row(
            "SELECT outcome FROM conclusions WHERE intent = ?", (conclusion.intent,)
        )
        if known is not None:
            raise LedgerError(f"intent {conclusion.intent} is concluded already: {known[0]}")
        downtime = conclusion.downtime
        seconds = conclusion.seconds
        row = {
            "intent": conclusion.intent,
            "at": conclusion.at,
            "outcome": conclusion.outcome,
            "detail": conclusion.detail,
            "bytes": conclusion.bytes,
            "iterations": conclusion.iterations,
            "downtime_ms": None if downtime is None else float(to_milliseconds(downtime)),
            "seconds": None if seconds is None else float(seconds),
            "error": conclusion.error,
            "error_code": conclusion.error_code,
            "error_domain": conclusion.error_domain,
            "adopted": conclusion.adopted,
            "against": conclusion.against,
        }
        subject = intent["vm"] or intent["host"]
        event = audit.append(database, conclusion.at, "conclusion", subject, line_of(row))
        database.insert("conclusions", row | {"event": event})
    return intent


def record_progress(database: Database, intent: int, report: JobReport) -> None:
    """Note how far a migration is, over what was noted before."""
    progress = report.progress
    if progress is None:
        return
    database.execute(
        _PROGRESS,
        (
            *(intent, report.at, progress.total, progress.processed, progress.remaining),
            *(progress.iteration, progress.elapsed, progress.dirty_rate, progress.throttle),
        ),
    )


def unconcluded(database: Database) -> tuple[Intent, ...]:
    """Intents without a conclusion, oldest first."""
    rows = database.rows(
        "SELECT intents.*, progress.intent IS NOT NULL AS seen"
        " FROM intents LEFT JOIN progress ON progress.intent = intents.id"
        " WHERE intents.id NOT IN (SELECT intent FROM conclusions) ORDER BY intents.id"
    )
    return tuple(intent_of(row) for row in rows)


def intent_of(row: Row) -> Intent:
    """The intent of a row."""
    return Intent(
        kind=IntentKind(row["kind"]),
        at=row["at"],
        host=row["host"],
        vm=row["vm"],
        uuid=row["uuid"],
        target=row["target"],
        method=None if row["method"] is None else Method(row["method"]),
        reason=row["reason"],
        plan=row["plan"] or 0,
        action=row["action"] or 0,
        bandwidth=row["bandwidth_bytes_per_s"],
        autostart=bool(row["autostart"]),
        target_defined=bool(row["target_defined"]),
        hand_over=bool(row["hand_over"]),
        predicted_seconds=row["predicted_seconds"],
        predicted_bytes=row["predicted_bytes"],
        predicted_downtime=from_milliseconds(row["predicted_downtime_ms"]),
        basis=basis_of(row["basis"]),
        id=row["id"],
        seen=bool(row["seen"]),
    )


class RecentMoves:
    """Migrations that ended of late: read once, then kept up with each conclusion."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._moves: list[PastMove] = []
        self._told: tuple[PastMove, ...] = ()  # the same, as long as they are the same
        self._since: float | None = None  # complete from here on
        self._rollbacks = 0

    def add(self, intent: Row, conclusion: Conclusion) -> None:
        """Take in a migration that was concluded just now."""
        if self._since is not None and intent["kind"] == IntentKind.MIGRATE:
            insort(self._moves, _past_move(intent, conclusion), key=attrgetter("at"))

    def until(self, now: float) -> tuple[PastMove, ...]:
        """Those that are remembered at `now`, oldest first."""
        since = now - REMEMBERED
        rolled_back = self._rollbacks != self._database.rollbacks
        if self._since is None or since < self._since or rolled_back:
            self._read(since)
        self._since = since
        old = next((n for n, move in enumerate(self._moves) if move.at > since), len(self._moves))
        del self._moves[:old]
        if len(self._told) != len(self._moves) or not all(map(is_, self._told, self._moves)):
            self._told = tuple(self._moves)
        return self._told

    def _read(self, since: float) -> None:
        self._rollbacks = self._database.rollbacks
        self._moves = moves_between(self._database, since, inf)


def moves_between(database: Database, since: float, until: float) -> list[PastMove]:
    """Migrations that ended after the one time and not after the other, oldest first."""
    rows = database.rows(
        "SELECT intent, vm, host, target, predicted_bytes,"
        " conclusions.at, outcome, conclusions.detail, bytes, against"
        " FROM conclusions JOIN intents ON intents.id = intent"
        " WHERE kind = 'migrate' AND conclusions.at > ? AND conclusions.at <= ?"
        " ORDER BY conclusions.at, conclusions.id",
        (since, until),
    )
    return [_past_move(row, _conclusion(row)) for row in rows]


def _conclusion(row: Row) -> Conclusion:
    """As much of a conclusion as the memory of moves is made of."""
    outcome, against = Outcome(row["outcome"]), Against(row["against"])
    told = row["intent"], row["at"], outcome, row["detail"]
    return Conclusion(*told, bytes=row["bytes"], against=against)


def _past_move(intent: Row, conclusion: Conclusion) -> PastMove:
    """A migration that ended. What it sent is not known where it ended unseen, while balancerd
    was down: then what was predicted counts, for a budget must not be stretched by not looking."""
    outcome, sent = conclusion.outcome, conclusion.bytes
    if sent is None:
        sent = 0 if outcome in NEVER_BEGUN else intent["predicted_bytes"]
    said = conclusion.detail if outcome is Outcome.OBJECTED else ""
    ways = intent["vm"], intent["host"], intent["target"]
    return PastMove(*ways, conclusion.at, outcome, sent, said, conclusion.against)
