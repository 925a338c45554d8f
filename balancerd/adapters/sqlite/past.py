"""What deciding remembered at a moment, out of a ledger that somebody has opened."""

from dataclasses import replace

from balancerd.adapters.sqlite.database import Database
from balancerd.adapters.sqlite.deeds import deeds_between
from balancerd.adapters.sqlite.intents import moves_between
from balancerd.adapters.sqlite.lessons import lessons_until
from balancerd.adapters.sqlite.power import PowerTimes
from balancerd.core.past.history import REMEMBERED, WEEK, History


def recent_past(database: Database, now: float) -> History:
    """What was done to VMs, by us and by others: what rests because of it takes no more."""
    return History(
        moves=tuple(moves_between(database, now - REMEMBERED, now)),
        deeds=deeds_between(database, now - WEEK, now),
    )


def whole_past(database: Database, now: float) -> History:
    """All of it; hosts that are empty by now, though not then."""
    power = PowerTimes(database)
    empty = database.rows(
        "SELECT name, empty_since_at FROM hosts WHERE empty_since_at <= ?", (now,)
    )
    return replace(
        recent_past(database, now),
        woken={host: at for host, at in power.woken().items() if at <= now},
        slept={host: at for host, at in power.slept().items() if at <= now},
        put_to_sleep={host: at for host, at in power.put_to_sleep().items() if at <= now},
        idle_since=dict(tuple(row) for row in empty),
        lessons=lessons_until(database, now),
    )
