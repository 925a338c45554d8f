"""Whether the record is as it was written: the chain of the audit, and each end it tells of.

The audit's line about how an intent ended has all its figures, so that the table of conclusions
can be compared with it, row by row and number by number.
"""

from sqlite3 import Row

from balancerd.adapters.sqlite import audit
from balancerd.adapters.sqlite.audit import Verdict
from balancerd.adapters.sqlite.database import Database
from balancerd.core.outcome import Against

_TOLD = """SELECT conclusions.*, events.detail AS told FROM conclusions
    LEFT JOIN events ON events.id = event ORDER BY conclusions.id"""
# Lines whose row is gone; where old rows were dropped on purpose, only newer ones.
_UNTOLD = """SELECT min(events.id) FROM events LEFT JOIN conclusions ON event = events.id
    WHERE kind = 'conclusion' AND event IS NULL
    AND events.at > coalesce((SELECT max(at) FROM event_anchors), -1e18)"""


def line_of(row: Row | dict[str, object]) -> str:
    """The audit's line about a conclusion, out of its row."""
    words = ", ".join(str(row[name]) for name in ("outcome", "detail", "error") if row[name])
    figures = ", ".join(
        f"{name} {row[name]}"
        for name in ("bytes", "iterations", "downtime_ms", "seconds")
        if row[name] is not None
    )
    codes = f"; code {row['error_code']}/{row['error_domain']}" if row["error_code"] else ""
    adopted = "; adopted" if row["adopted"] else ""
    closed = f"; against the {row['against']}" if row["against"] != Against.MOVE else ""
    what = f"intent {row['intent']}: {words}" + (f" ({figures})" if figures else "")
    return what + codes + adopted + closed


def verify(database: Database) -> Verdict:
    """Look through the whole audit, and through all that it tells the end of."""
    verdict = audit.verify(database)
    fault = verdict.fault or _changed(database) or _missing(database)
    return Verdict(verdict.events, verdict.head, fault)


def _changed(database: Database) -> str:
    dropped = database.row("SELECT coalesce(max(up_to), 0) FROM event_anchors")
    for row in database.stream(_TOLD):
        if row["told"] is None:
            if dropped is not None and row["event"] > dropped[0]:
                return f"the end of intent {row['intent']} is in no line of the audit"
        elif row["told"] != line_of(row):
            return f"the end of intent {row['intent']} was changed: event {row['event']} differs"
    return ""


def _missing(database: Database) -> str:
    row = database.row(_UNTOLD)
    return f"the end that event {row[0]} tells of is missing" if row and row[0] else ""
