"""The reading side for the command line: a ledger, looked at while a daemon writes it.

Rows are dicts ready to be printed: units in the names, times as ISO 8601 text.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from sqlite3 import Row
from typing import Any

from balancerd.adapters.sqlite import audit, operator, proof
from balancerd.adapters.sqlite.database import Database
from balancerd.adapters.sqlite.lock import is_locked
from balancerd.core.past.record import UNSETTLED, Cycle, Pause
from balancerd.core.past.vetoes import DEED
from balancerd.core.units import HOUR, format_time

Item = dict[str, Any]
MEASURED = 0.01  # seconds to which hosts' clocks are known
_BOOLEANS = {
    "can_sleep",
    "driver_doubted",
    "parked",
    "persistent",
    "autostart",
    "adopted",
    "accepted",
    "target_defined",
    "hand_over",
}
_JSON = {"tags", "arguments", "after", "refusal_counts", "certificate", "definition", "basis"}
_PLAN = """id, at, policy, objective, state, reason, score_before, score_after, moves,
    power_actions"""
_FIGURES = """bytes, downtime_ms, seconds, predicted_bytes, predicted_downtime_ms,
    predicted_seconds, predicted_least_bytes, predicted_most_bytes, predicted_least_downtime_ms,
    predicted_most_downtime_ms, predicted_least_seconds, predicted_most_seconds"""
_MIGRATION = """id, begun_at, ended_at, vm, source, target, method, outcome, bytes, iterations,
    downtime_ms, seconds, predicted_bytes, predicted_downtime_ms, predicted_seconds,
    predicted_least_bytes, predicted_most_bytes, predicted_least_downtime_ms,
    predicted_most_downtime_ms, predicted_least_seconds, predicted_most_seconds, link,
    bandwidth_bytes_per_s, plan, action, reason, detail, error, adopted"""
_REQUEST = "id, at, verb, subject, by, arguments, answered_at, accepted, answer"


@dataclass(frozen=True, slots=True)
class Absence:
    """Since when a balancerd that was there is not."""

    since: float  # its last sign of life
    announced: bool  # it was stopped, and said so


@dataclass(frozen=True, slots=True)
class Status:
    """What `balancerctl status` tells."""

    running: bool  # a balancerd holds the record's lock
    absence: Absence | None  # None: it runs, or never did on this record
    cycle: Cycle | None  # the newest one
    pause: Pause | None
    under_way: int  # intents without a conclusion
    waiting: int  # requests without an answer
    draining: tuple[str, ...]
    doubted: tuple[str, ...]  # hosts whose power driver said that they are off, and they answered
    objections: tuple[str, ...]  # what hosts said against moves within the last hour
    unsettled: tuple[str, ...]  # moves of which nobody can tell what came, and what hosts say


class Reader:
    """Questions to a ledger that somebody has opened, for reading or otherwise."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def status(self, now: float) -> Status:
        """How things stand."""
        running, cycle = is_locked(self.database.path.parent), self.newest_cycle()
        return Status(
            running=running,
            absence=None if running else self._absence(cycle),
            cycle=cycle,
            pause=operator.standing_pause(self.database, now),
            under_way=self._under_way(),
            waiting=len(operator.unanswered(self.database)),
            draining=tuple(sorted(operator.draining(self.database))),
            doubted=self._doubted(),
            objections=self._objections(now - HOUR),
            unsettled=self._unsettled(),
        )

    def _absence(self, cycle: Cycle | None) -> Absence | None:
        row = self.database.row(
            "SELECT at, kind = 'end' FROM events WHERE subject = 'balancerd'"
            " AND kind IN ('begin', 'end') ORDER BY id DESC LIMIT 1"
        )
        if row is None:
            return None
        return Absence(max(row[0], cycle.at if cycle else 0.0), announced=bool(row[1]))

    def _unsettled(self) -> tuple[str, ...]:
        """What people were last told of each move that is waited for."""
        if not self._under_way():
            return ()
        rows = self.database.rows(
            "SELECT vm || ' to ' || target, detail, max(events.id) FROM open_intents JOIN events"
            " ON events.kind = ? AND subject = vm AND events.at >= open_intents.at"
            " GROUP BY open_intents.id ORDER BY vm",
            (UNSETTLED,),
        )
        return tuple(f"{move}: {detail}" for move, detail, _ in rows)

    def _doubted(self) -> tuple[str, ...]:
        rows = self.database.rows(
            "SELECT name FROM hosts WHERE gone_at IS NULL"
            " AND json_extract(definition, '$.driver_doubted') ORDER BY name"
        )
        return tuple(name for (name,) in rows)

    def _objections(self, since: float) -> tuple[str, ...]:
        """The newest objection to each move, or to all that a host is concerned with, sorted."""
        rows = self.database.rows(
            "SELECT CASE against WHEN 'target' THEN 'all to ' || target"
            " WHEN 'source' THEN 'all from ' || host"
            " WHEN 'pair' THEN 'all from ' || host || ' to ' || target"
            " ELSE vm || ' to ' || target END AS moves, detail, max(conclusions.at)"
            " FROM conclusions JOIN intents ON intents.id = intent"
            " WHERE outcome = 'objected' AND conclusions.at > ? GROUP BY moves ORDER BY moves",
            (since,),
        )
        return tuple(f"{moves}: {detail}" for moves, detail, _ in rows)

    def is_untroubled(self, since: float) -> bool:
        """Whether every host is known, no clock is seen to be off, and since this time nothing
        failed and nobody but balancerd did anything to a VM: then nothing rests."""
        row = self.database.row(
            "SELECT coalesce((SELECT hosts_unknown FROM cycles ORDER BY id DESC LIMIT 1), 0)"
            " OR EXISTS (SELECT 1 FROM conclusions WHERE at >= :since AND outcome <> 'done')"
            " OR EXISTS (SELECT 1 FROM events WHERE at >= :since AND kind = :deed)"
            " OR EXISTS (SELECT 1 FROM hosts WHERE gone_at IS NULL"
            " AND abs(json_extract(definition, '$.clock_ahead_seconds')) > :measured)",
            {"since": since, "deed": DEED, "measured": MEASURED},
        )
        return row is not None and not row[0]

    def newest_cycle(self) -> Cycle | None:
        """The daemon's last completed cycle."""
        row = self.database.row(
            "SELECT at, seconds, sentence, mode, objective, window, hosts_on, hosts_asleep,"
            " hosts_unknown, vms, overloaded, frozen, coalesce(plan, 0) AS plan, plan_seconds"
            " FROM cycles ORDER BY id DESC LIMIT 1"
        )
        return None if row is None else Cycle(**dict(row))

    def pause(self, now: float) -> Pause | None:
        """The pause that stands, if one does."""
        return operator.standing_pause(self.database, now)

    def hosts(self) -> list[Item]:
        """Every host of the site as last seen, with the number of VMs on it."""
        return self._items(
            "SELECT hosts.name, rack, power, cpu_reference_cores, cores, memory_bytes, cpu_model,"
            " can_sleep, coalesce(json_extract(definition, '$.driver_doubted'), 0)"
            " AS driver_doubted, uuid, count(placements.vm) AS vms, empty_since_at, first_seen_at,"
            " json_extract(definition, '$.clock_ahead_seconds') AS clock_ahead_seconds"
            " FROM hosts LEFT JOIN placements"
            " ON placements.host = hosts.name AND placements.until_at IS NULL"
            " WHERE gone_at IS NULL GROUP BY hosts.name ORDER BY hosts.name"
        )

    def vms(self) -> list[Item]:
        """Every VM of the site as last seen, with its host."""
        return self._items(
            "SELECT vms.name, placements.host, state, memory_bytes, vcpus, cpu_reference_cores,"
            " persistent, autostart, owner, tags, uuid, placements.from_at AS on_host_since_at,"
            " first_seen_at FROM vms LEFT JOIN placements"
            " ON placements.vm = vms.name AND placements.until_at IS NULL"
            " WHERE gone_at IS NULL ORDER BY vms.name"
        )

    def plan_state(self, number: int) -> str | None:
        """How a plan stands; None where there is none of this number."""
        row = self.database.row("SELECT state FROM plans WHERE id = ?", (number,))
        return None if row is None else str(row[0])

    def hosts_ever_seen(self) -> list[str]:
        """The names of all hosts that the record knows of, those that are gone included."""
        return [name for (name,) in self.database.rows("SELECT name FROM hosts ORDER BY name")]

    def vms_ever_seen(self) -> list[str]:
        """The names of all VMs that the record knows of, those that are gone included."""
        return [name for (name,) in self.database.rows("SELECT name FROM vms ORDER BY name")]

    def plans(self, since: float = 0.0, limit: int = -1) -> list[Item]:
        """Plans, newest first."""
        return self._items(
            f"SELECT {_PLAN} FROM plans WHERE at >= ? ORDER BY id DESC LIMIT ?", (since, limit)
        )

    def migrations(
        self, since: float = 0.0, limit: int = -1, vm: str = "", host: str = ""
    ) -> list[Item]:
        """Migrations begun since a time, newest first; of one VM, or from or to one host."""
        return self._items(
            f"SELECT {_MIGRATION} FROM migrations WHERE begun_at >= :since"
            " AND (:vm = '' OR vm = :vm) AND (:host = '' OR :host IN (source, target))"
            " ORDER BY id DESC LIMIT :limit",
            {"since": since, "vm": vm, "host": host, "limit": limit},
        )

    def ends(self, since: float = 0.0) -> list[Item]:
        """The figures of all migrations begun since a time that ended, newest first; of those that
        hosts objected to there are none. Nothing else: in years there are very many."""
        rows = self.database.rows(
            f"SELECT method, outcome, {_FIGURES} FROM migrations WHERE begun_at >= ?"
            " AND ended_at IS NOT NULL AND outcome <> 'objected' ORDER BY id DESC",
            (since,),
        )
        return [dict(row) for row in rows]

    def events(self, since: float = 0.0, limit: int = -1, subject: str = "") -> list[Item]:
        """Lines of the audit, newest first."""
        return self._items(
            "SELECT id, at, kind, subject, detail FROM events WHERE at >= :since"
            " AND (:subject = '' OR subject = :subject) ORDER BY id DESC LIMIT :limit",
            {"since": since, "subject": subject, "limit": limit},
        )

    def requests(self, limit: int = -1) -> list[Item]:
        """Operators' requests, newest first."""
        return self._items(f"SELECT {_REQUEST} FROM requests ORDER BY id DESC LIMIT ?", (limit,))

    def request(self, number: int) -> Item | None:
        """One request with its answer, if it has one yet."""
        items = self._items(f"SELECT {_REQUEST} FROM requests WHERE id = ?", (number,))
        return items[0] if items else None

    def cycles(self, since: float = 0.0, limit: int = -1) -> list[Item]:
        """Completed cycles, newest first."""
        return self._items(
            "SELECT * FROM cycles WHERE at >= ? ORDER BY id DESC LIMIT ?", (since, limit)
        )

    def policy(self, plan: int | None = None) -> tuple[str, str] | None:
        """Name and text of the policy that was last put in force, or that a plan was made under."""
        row = self.database.row(
            "SELECT name, text FROM policies"
            " WHERE :plan IS NULL OR id = (SELECT policy_id FROM plans WHERE id = :plan)"
            " ORDER BY used_at DESC, id DESC",
            {"plan": plan},
        )
        return None if row is None else (row[0], row[1])

    def vms_on_draining_hosts(self) -> frozenset[str]:
        """The VMs that a drain is about."""
        rows = self.database.rows("SELECT vm, host FROM placements WHERE until_at IS NULL")
        draining = operator.draining(self.database)
        return frozenset(vm for vm, host in rows if host in draining)

    def audit(self) -> audit.Verdict:
        """Follow the whole chain of the audit."""
        return proof.verify(self.database)

    def _under_way(self) -> int:
        """Intents without a conclusion. Each has one at most; to count both takes no time, and to
        look for those without takes the longer, the longer the record is."""
        row = self.database.row(
            "SELECT (SELECT count(*) FROM intents) - (SELECT count(*) FROM conclusions)"
        )
        return int(row[0]) if row else 0

    def _items(self, sql: str, parameters: Any = ()) -> list[Item]:
        return [item_of(row) for row in self.database.rows(sql, parameters)]


def item_of(row: Row) -> Item:
    """A row as it is printed."""
    return dict(_shown(row.keys(), row))


def _shown(names: Iterable[str], values: Iterable[Any]) -> Iterable[tuple[str, Any]]:
    for name, value in zip(names, values, strict=True):
        if name == "time" or name.endswith("_time"):
            continue
        if value is not None and (name == "at" or name.endswith("_at")):
            yield name, format_time(value)
        elif value is not None and name in _BOOLEANS:
            yield name, bool(value)
        elif value is not None and name in _JSON:
            yield name, json.loads(value)
        else:
            yield name, value
