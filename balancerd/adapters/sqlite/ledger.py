"""The ledger: `ledger.db`, written by one balancerd at a time."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from balancerd.adapters.sqlite import audit, intents, operator, plans
from balancerd.adapters.sqlite.database import Access, DamagedError, Database
from balancerd.adapters.sqlite.deeds import PastDeeds
from balancerd.adapters.sqlite.intents import RecentMoves
from balancerd.adapters.sqlite.inventory import Inventory
from balancerd.adapters.sqlite.lessons import PastLessons
from balancerd.adapters.sqlite.maintenance import (
    RETENTION,
    LedgerRetention,
    back_up,
    backed_up_at,
    newest_backup,
    prune,
)
from balancerd.adapters.sqlite.power import PowerTimes
from balancerd.adapters.sqlite.schema import LEDGER
from balancerd.adapters.sqlite.snapshots import Snapshots
from balancerd.core.model import Host, PowerState, Snapshot
from balancerd.core.observation import JobReport
from balancerd.core.past.history import WEEK, History
from balancerd.core.past.record import Conclusion, Cycle, Intent, Pause, PlanState, Request
from balancerd.core.past.vetoes import DEED, Deed
from balancerd.core.plan import Plan
from balancerd.ports import LedgerError

_LOG = logging.getLogger(__name__)


class Ledger:
    """`ports.Ledger` on a file; opens in a `with`.

    Each call is committed, and on disk, when it returns. Intents, conclusions, plans that do
    something, pauses, requests, answers and drains write their own line of the audit.

    `durable=False` is for records of simulated sites: nothing is forced to disk, the calls of one
    cycle may be put into one `batch`, and the newest snapshot is only written at the end. Without
    `snapshots` it is the only one: a record that will be thrown away has no use for the others.
    """

    def __init__(
        self, path: Path, *, durable: bool = True, site: str = "", snapshots: bool = True
    ) -> None:
        self.database = Database(path, LEDGER, Access.OWN, "FULL" if durable else "OFF")
        self._durable, self._site, self._keeps_snapshots = durable, site, snapshots
        self._moves = RecentMoves(self.database)
        self._lessons = PastLessons(self.database)
        self._deeds = PastDeeds(self.database)
        self._power = PowerTimes(self.database)
        self._inventory = Inventory(self.database)
        self._snapshots = Snapshots(self.database)
        self._newest: Snapshot | None = None  # of a simulated site, not written yet

    def __enter__(self) -> Self:
        try:
            self.database.__enter__()
        except DamagedError as error:
            copy = newest_backup(self.database.path)
            hint = f"; the newest backup is {copy}" if copy else ""
            raise DamagedError(f"{error}{hint}") from error
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._newest is not None:
                self._snapshots.keep_newest(self._newest)
        finally:
            self.database.close()

    @contextmanager
    def batch(self) -> Iterator[None]:
        """One transaction for all calls inside; only where nothing has to be durable."""
        if self._durable:
            raise LedgerError("a durable ledger commits every call by itself")
        with self.database.transaction():
            yield

    def maintain(self, now: float, retention: LedgerRetention = RETENTION) -> None:
        """Once a day or so: delete what is past its retention, and make a verified backup.

        Tells the log the head of the audit, which proves later that no line was taken away.
        """
        try:
            back_up(self.database, now)
        finally:  # a disk without room for a copy needs it all the more
            prune(self.database, now, retention)
        _LOG.info("the audit has %d lines; its head is %s", *audit.head(self.database))

    def maintained_at(self) -> float:
        """When it was last maintained, by its newest backup; 0 if never."""
        return backed_up_at(self.database.path)

    def recover(self) -> tuple[Intent, ...]:
        """Intents that have no conclusion yet, oldest first."""
        return intents.unconcluded(self.database)

    def clock(self, boot: str) -> float | None:
        """What tells our time from the monotonic clock of this run of the machine, if known."""
        row = self.database.row("SELECT seconds_ahead FROM clocks WHERE boot = ?", (boot,))
        return None if row is None else float(row[0])

    def keep_clock(self, boot: str, ahead: float) -> None:
        """Write down by how many seconds our time is ahead of the monotonic clock."""
        with self.database.transaction():
            self.database.execute("DELETE FROM clocks")
            self.database.insert("clocks", {"boot": boot, "seconds_ahead": ahead})

    def open_plans(self) -> tuple[int, ...]:
        """Plans that are proposed or running by the record."""
        return plans.open_plans(self.database)

    def known_hosts(self) -> Mapping[str, Host]:
        """Every host of the site as it was last recorded."""
        return self._inventory.known_hosts()

    def intend(self, intent: Intent) -> int | None:
        """Commit an intent and give its id; None while a pause stands at the intent's time."""
        return intents.intend(self.database, intent)

    def conclude(self, conclusion: Conclusion) -> None:
        """Commit how an intent ended; LedgerError when that is known already."""
        intent = intents.conclude(self.database, conclusion)
        self._moves.add(intent, conclusion)
        self._lessons.add(intent, conclusion)
        self._power.add(intent, conclusion)

    def record_progress(self, intent: int, report: JobReport) -> None:
        """Note how far a migration is; a report without figures changes nothing."""
        intents.record_progress(self.database, intent, report)

    def record_policy(self, name: str, text: str, at: float) -> bool:
        """Keep a policy's text, once for each name and text; whether it was not in force before."""
        return plans.record_policy(self.database, name, text, at)

    def record_inventory(self, snapshot: Snapshot) -> None:
        """Write what changed of hosts, VMs and placements, and keep the snapshot as the newest."""
        if not self._durable:
            self._inventory.record(snapshot, self._site)
            self._newest = snapshot
            return
        with self.database.transaction():
            self._inventory.record(snapshot, self._site)
            self._snapshots.keep_newest(snapshot)

    def record_plan(
        self, plan: Plan, snapshot: Snapshot, state: PlanState, detail: str = ""
    ) -> int:
        """Keep a plan and its snapshot; the plan's id."""
        with self.database.transaction():
            number = plans.record_plan(self.database, plan, state, detail)
            if self._keeps_snapshots:
                self._snapshots.keep_for(number, snapshot)
        return number

    def set_plan_state(self, plan: int, state: PlanState, at: float, detail: str) -> None:
        """Note how a plan goes on."""
        plans.set_state(self.database, plan, state, at, detail)

    def record_power(self, host: str, state: PowerState, at: float) -> None:
        """Note that a host's power was seen to change."""
        self._power.record(host, state, at)

    def record_cycle(self, cycle: Cycle) -> None:
        """Note a completed cycle; the newest one is the daemon's status."""
        self.database.insert(
            "cycles",
            {
                "at": cycle.at,
                "seconds": cycle.seconds,
                "sentence": cycle.sentence,
                "mode": cycle.mode,
                "objective": cycle.objective,
                "window": cycle.window,
                "hosts_on": cycle.hosts_on,
                "hosts_asleep": cycle.hosts_asleep,
                "hosts_unknown": cycle.hosts_unknown,
                "vms": cycle.vms,
                "overloaded": cycle.overloaded,
                "frozen": cycle.frozen,
                "plan": cycle.plan or None,
                "plan_seconds": cycle.plan_seconds,
            },
        )

    def record_event(self, at: float, kind: str, subject: str, detail: str) -> None:
        """Add a line to the audit."""
        audit.append(self.database, at, kind, subject, detail)
        if kind == DEED:
            self._deeds.add(Deed(subject, detail, at))

    def history(self, now: float) -> History:
        """Migrations that ended in the last week, power changes, and hosts empty now."""
        return History(
            moves=self._moves.until(now),
            woken=self._power.woken(),
            slept=self._power.slept(),
            put_to_sleep=self._power.put_to_sleep(),
            idle_since=self._inventory.empty_since(),
            lessons=self._lessons.now(),
            deeds=self._deeds.since(now - WEEK),
        )

    def requests(self) -> tuple[Request, ...]:
        """What the operator asked for and was not answered yet, oldest first."""
        return operator.unanswered(self.database)

    def answer(self, request: int, at: float, accepted: bool, detail: str) -> None:
        """Answer a request; LedgerError when it was answered before."""
        operator.answer(self.database, request, at, accepted, detail)

    def pause(self, now: float) -> Pause | None:
        """The pause that stands, if one does."""
        return operator.standing_pause(self.database, now)

    def draining(self) -> frozenset[str]:
        """Hosts that the operator drains."""
        return operator.draining(self.database)

    def set_draining(self, host: str, draining: bool, at: float) -> None:
        """Begin or end a host's drain."""
        operator.set_draining(self.database, host, draining, at)
