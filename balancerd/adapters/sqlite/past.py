"""What deciding remembered, out of a ledger that somebody has opened."""

from balancerd.adapters.sqlite.database import Database
from balancerd.adapters.sqlite.deeds import PastDeeds
from balancerd.adapters.sqlite.intents import RecentMoves
from balancerd.adapters.sqlite.power import PowerTimes
from balancerd.core.past.history import WEEK, History


def past_of(database: Database, now: float) -> History:
    """What deciding remembered at a moment; hosts that are empty by now, though not then."""
    power, deeds = PowerTimes(database), PastDeeds(database).since(now - WEEK)
    empty = database.rows(
        "SELECT name, empty_since_at FROM hosts WHERE empty_since_at <= ?", (now,)
    )
    return History(
        moves=tuple(m for m in RecentMoves(database).until(now) if m.at <= now),
        woken={host: at for host, at in power.woken().items() if at <= now},
        slept={host: at for host, at in power.slept().items() if at <= now},
        put_to_sleep={host: at for host, at in power.put_to_sleep().items() if at <= now},
        idle_since=dict(tuple(row) for row in empty),
        deeds={vm: d for vm, d in deeds.items() if d.at <= now},
    )
