"""The whole story of a record as events in the order of time, one after the other.

The shape of the events is fixed: anything outside may score a record by them. Nothing is held in
memory but where each VM was last said to be.
"""

import heapq
from collections.abc import Iterable, Iterator
from typing import Any

from balancerd.adapters.sqlite.database import Database
from balancerd.core.outcome import Outcome
from balancerd.core.units import format_time

Event = dict[str, Any]
# A time, and an order among things of the same time: first where VMs are, then hosts that come on,
# plans, moves, of which the one announced earlier ends before a later one starts, and hosts that go
# off: nothing is ever on a host that is not on.
_Key = tuple[float, int, int, int]
_Entry = tuple[_Key, Event]
_PLACE, _ON, _PLAN, _MOVE, _OFF, _SAMPLE = range(6)

_PLACEMENTS = """SELECT max(from_at, :since) AS at, vm, host FROM placements
    WHERE until_at IS NULL OR until_at > :since ORDER BY 1, vm"""
_POWERS_BEFORE = """SELECT :since, host, power FROM (
        SELECT host, power, max(at) FROM power_events
        WHERE at < :since AND power IN ('on', 'off') GROUP BY host)
    ORDER BY host"""
_POWERS = """SELECT at, host, power FROM power_events
    WHERE at >= :since AND power = '{state}' ORDER BY at, id"""
_PLANS = "SELECT at, id, policy, reason FROM plans WHERE at >= :since ORDER BY at, id"
_MOVES = """FROM intents {join} JOIN conclusions ON conclusions.intent = intents.id
    WHERE kind = 'migrate' AND intents.at >= :since
        AND coalesce(outcome, '') NOT IN ('not started', 'objected')"""
_STARTS = f"""SELECT intents.at, intents.id, vm, host, target, method {_MOVES.format(join="LEFT")}
    ORDER BY 1, 2"""
_ENDS = f"""SELECT conclusions.at, intents.id, vm, host, target, method, outcome,
    conclusions.bytes, downtime_ms, seconds {_MOVES.format(join="")} ORDER BY 1, 2"""
_SAMPLES = """SELECT ticks.at, kind, name, cpu_reference_cores, memory_bytes
    FROM ticks CROSS JOIN readings ON readings.tick = ticks.id
        JOIN subjects ON subjects.id = subject
    WHERE ticks.at >= :since ORDER BY ticks.at, subject"""
_OUTCOMES = {Outcome.DONE: "done", Outcome.ABORTED: "aborted"}  # all others: failed


def export(ledger: Database, since: float, samples: Database | None = None) -> Iterator[Event]:
    """The events since a time, beginning with where everything was then.

    Where `samples` is given, each of its readings is an event, too. Both are opened for reading;
    until the last event was taken, the story stays as it was when the first one was.
    """
    with ledger.still():
        entries = _entries(ledger, since)
        if samples is not None:
            entries.append(_samples(samples, since))
        yield from _told(heapq.merge(*entries))


def _entries(ledger: Database, since: float) -> list[Iterator[_Entry]]:
    """The sorted streams that make up the story."""

    def rows(sql: str) -> Iterator[Any]:
        return ledger.stream(sql, {"since": since})

    return [
        _numbered(_PLACE, ((at, _place(vm, host)) for at, vm, host in rows(_PLACEMENTS))),
        _numbered(_ON, (_power(*row) for row in rows(_POWERS_BEFORE))),
        _numbered(_ON, (_power(*row) for row in rows(_POWERS.format(state="on")))),
        _numbered(_OFF, (_power(*row) for row in rows(_POWERS.format(state="off")))),
        _numbered(_PLAN, (_plan(*row) for row in rows(_PLANS))),
        (((row["at"], _MOVE, row["id"], 0), _start(row)) for row in rows(_STARTS)),
        (((row["at"], _MOVE, row["id"], 1), _end(row)) for row in rows(_ENDS)),
    ]


def _numbered(rank: int, items: Iterable[tuple[float, Event]]) -> Iterator[_Entry]:
    """Entries of one rank; those of the same time keep their order."""
    for number, (at, event) in enumerate(items):
        yield (at, rank, number, 0), event


def _place(vm: str, host: str) -> Event:
    return {"event": "place", "vm": vm, "host": host}


def _power(at: float, host: str, state: str) -> tuple[float, Event]:
    return at, {"event": "power", "host": host, "state": state}


def _plan(at: float, number: int, policy: str, reason: str) -> tuple[float, Event]:
    return at, {"event": "plan", "id": number, "policy": policy, "reason": reason}


def _move(event: str, row: Any) -> Event:
    return {
        "event": event,
        "vm": row["vm"],
        "from": row["host"],
        "to": row["target"],
        "method": row["method"],
    }


def _start(row: Any) -> Event:
    return _move("move_start", row)


def _end(row: Any) -> Event:
    return {
        **_move("move_end", row),
        "bytes": row["bytes"],
        "downtime_ms": row["downtime_ms"],
        "seconds": row["seconds"],
        "outcome": _OUTCOMES.get(row["outcome"], "failed"),
    }


def _samples(series: Database, since: float) -> Iterator[_Entry]:
    items = (
        (at, {"event": "sample", kind: name, "cpu_reference_cores": cpu, "memory_bytes": memory})
        for at, kind, name, cpu, memory in series.stream(_SAMPLES, {"since": since})
    )
    return _numbered(_SAMPLE, items)


def _told(entries: Iterable[_Entry]) -> Iterator[Event]:
    """The events with their time, without places that the moves already tell of, and without
    power that a host was said to have."""
    places, powers = _Places(), dict[str, str]()
    for key, event in entries:
        if event["event"] == "place" and not places.is_news(event["vm"], event["host"]):
            continue
        if event["event"] == "power":
            if powers.get(event["host"]) == event["state"]:
                continue
            powers[event["host"]] = event["state"]
        yield {"t": format_time(key[0]), **event}
        if event["event"].startswith("move"):
            correction = places.follow(event)
            if correction is not None:
                yield {"t": format_time(key[0]), **correction}


class _Places:
    """Where the events told so far put each VM.

    A cycle may see a VM on its new host a moment before the end of its move is recorded; that is
    no news, unless the move is then said to have failed.
    """

    def __init__(self) -> None:
        self._told: dict[str, str] = {}
        self._seen: dict[str, str] = {}
        self._under_way: dict[str, str] = {}  # the target of each VM that moves

    def is_news(self, vm: str, host: str) -> bool:
        """Take in where a VM was seen; whether nobody has told so yet."""
        self._seen[vm] = host
        if host in (self._told.get(vm), self._under_way.get(vm)):
            return False
        self._told[vm] = host
        return True

    def follow(self, event: Event) -> Event | None:
        """Take in a move's start or end; the place to be told when its end was not the truth."""
        vm = event["vm"]
        if event["event"] == "move_start":
            self._under_way[vm] = event["to"]
            return None
        self._under_way.pop(vm, None)
        if event["outcome"] == "done":
            self._told[vm] = event["to"]
        elif vm in self._seen and self._seen[vm] != self._told.get(vm):
            self._told[vm] = self._seen[vm]
            return _place(vm, self._seen[vm])
        return None
