"""The fault script: what can go wrong around one migration, and how it may end then.

One table, played twice: on real hosts (`stage.py`) and on simulated ones, by the same code through
the production loop, executor and ledger. What a fault may come to on real hosts is written down
here; a simulated site whose end is not among it is wrong about libvirt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from balancerd.adapters.sqlite.ledger import Ledger
from balancerd.adapters.sqlite.reader import Reader
from balancerd.adapters.sqlite.samples import SamplesStore
from balancerd.core.history import History
from balancerd.core.model import Method, Snapshot
from balancerd.core.plan import Move, Plan
from balancerd.core.policy import Policy
from balancerd.loop import Loop
from balancerd.ports import Backend, Clock, Power

MIB = 2**20
SOURCE, TARGET, THIRD = "h1", "h2", "h3"
CYCLE = 2.0  # seconds between two cycles; in between the loop is stepped
PATIENCE = 150.0  # seconds until a case must have come to its end


class Trouble(StrEnum):
    """What goes wrong."""

    NONE = "nothing"
    SOURCE_DAEMON_KILLED = "kill -9 of the source's libvirtd"
    SOURCE_DAEMON_STOPPED = "SIGSTOP of the source's libvirtd"
    TARGET_DAEMON_KILLED = "kill -9 of the target's libvirtd"
    TARGET_DAEMON_STOPPED = "SIGSTOP of the target's libvirtd"
    TARGET_QEMU_KILLED = "kill -9 of the target's QEMU"
    LINK_CUT = "the target's migration cable is pulled"
    ABORTED_BY_HAND = "virsh domjobabort"
    MIGRATED_BY_HAND = "virsh migrate to a third host"
    SHUT_OFF = "virsh destroy"
    DEFINED_ON_TARGET = "virsh define of the VM itself on the target"
    NAMESAKE_ON_TARGET = "virsh define of another VM by its name on the target"


class Moment(StrEnum):
    """When it does."""

    PLANNED = "after the plan, before both hosts are asked"
    CHECKED = "after both hosts were asked, before the start"
    COPYING = "while memory is copied"
    POST_COPY = "while the VM runs on the target and memory follows"


@dataclass(frozen=True, slots=True)
class End:
    """Where the VM runs, and what the ledger says."""

    runs_on: tuple[str, ...]
    outcome: str  # of the migration; "dropped" where none was intended


STAYED = End((SOURCE,), "failed")
GIVEN_UP = End((SOURCE,), "aborted")
ARRIVED = End((TARGET,), "done")
NOT_TRIED = End((SOURCE,), "dropped")
OBJECTED = End((SOURCE,), "objected")


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the script."""

    name: str
    trouble: Trouble
    moment: Moment
    allowed: frozenset[End]
    lasts: float = 0.0  # seconds until what is broken is mended; 0: there is nothing to mend
    method: Method = Method.PRE_COPY
    bandwidth: int = 8 * MIB
    dirty_mb_per_s: int = 0  # what the VM writes meanwhile
    link_mb_per_s: int = 0  # of the target's migration cable; 0: as fast as it goes
    audit: tuple[str, ...] = ()  # kinds of lines that the audit must have, in this order
    only_real: str = ""  # why it is not played on simulated hosts

    def __str__(self) -> str:
        return self.name


def _case(name: str, trouble: Trouble, moment: Moment, *allowed: End, **more: Any) -> Case:
    return Case(name, trouble, moment, frozenset(allowed), **more)


HOSTS_FAIL = (
    _case("what nothing disturbs arrives", Trouble.NONE, Moment.COPYING, ARRIVED),
    _case(
        "a killed source libvirtd leaves the VM on its source",
        *(Trouble.SOURCE_DAEMON_KILLED, Moment.COPYING, STAYED),
        lasts=2.0,
    ),
    _case(
        "a source libvirtd that hangs delays the answer, and any end is told as it is",
        *(Trouble.SOURCE_DAEMON_STOPPED, Moment.COPYING, STAYED, ARRIVED),
        lasts=8.0,
    ),
    _case(
        "a killed target libvirtd leaves the VM on its source",
        *(Trouble.TARGET_DAEMON_KILLED, Moment.COPYING, STAYED),
        lasts=2.0,
    ),
    _case(
        "a target libvirtd that hangs leaves the VM on its source, or is waited for",
        *(Trouble.TARGET_DAEMON_STOPPED, Moment.COPYING, STAYED, ARRIVED),
        lasts=9.0,
    ),
    _case(
        "a target whose QEMU dies leaves the VM on its source",
        *(Trouble.TARGET_QEMU_KILLED, Moment.COPYING, STAYED),
    ),
)
LINKS_FAIL = (
    _case(
        "a link that stays down has the migration given up",
        *(Trouble.LINK_CUT, Moment.COPYING, GIVEN_UP),
        lasts=PATIENCE,
        audit=("abort",),
    ),
    _case(
        "a link that is down for a moment only delays the migration",
        *(Trouble.LINK_CUT, Moment.COPYING, ARRIVED),
        lasts=2.0,
    ),
    _case(
        "a link that is down in post-copy is waited for, for there is no way back",
        *(Trouble.LINK_CUT, Moment.POST_COPY, ARRIVED),
        lasts=14.0,
        method=Method.POST_COPY,
        bandwidth=100 * MIB,
        dirty_mb_per_s=30,
        link_mb_per_s=10,
        audit=("ladder",),
    ),
    _case(
        "a VM that writes faster than it is copied climbs the ladder and is given up",
        *(Trouble.NONE, Moment.COPYING, GIVEN_UP),
        bandwidth=20 * MIB,
        dirty_mb_per_s=60,
        audit=("ladder", "ladder", "abort"),
    ),
)
PEOPLE_ACT = (
    _case(
        "a migration that is aborted by hand is told as aborted",
        *(Trouble.ABORTED_BY_HAND, Moment.COPYING, GIVEN_UP),
    ),
    _case(
        "a VM that somebody migrates already is left to him",
        *(Trouble.MIGRATED_BY_HAND, Moment.PLANNED, End((THIRD,), "dropped")),
    ),
    _case(
        "a VM that somebody begins to migrate before us is left to him",
        *(Trouble.MIGRATED_BY_HAND, Moment.CHECKED, End((THIRD,), "not started")),
    ),
    _case(
        "a VM that was shut off since the plan is not touched",
        *(Trouble.SHUT_OFF, Moment.PLANNED, End((), "dropped")),
    ),
    _case(
        "a VM that was shut off since the check is not touched",
        *(Trouble.SHUT_OFF, Moment.CHECKED, End((), "not started")),
    ),
    _case(
        "a stale definition of the VM on the target is replaced",
        *(Trouble.DEFINED_ON_TARGET, Moment.PLANNED, ARRIVED),
    ),
    _case(
        "another VM by this name on the target keeps the VM on its source",
        *(Trouble.NAMESAKE_ON_TARGET, Moment.PLANNED, NOT_TRIED, OBJECTED),
        only_real="simulated VMs have one name each",
    ),
    _case(
        "another VM by this name that comes to the target since the check stops the start",
        *(Trouble.NAMESAKE_ON_TARGET, Moment.CHECKED, STAYED),
        only_real="simulated VMs have one name each",
    ),
)
DISKS_MOVE = (
    _case(
        "a VM with a local disk takes it along",
        *(Trouble.NONE, Moment.COPYING, ARRIVED),
        method=Method.STORAGE,
        bandwidth=40 * MIB,
    ),
    _case(
        "a VM whose target dies while its disk is copied stays, disk and all",
        *(Trouble.TARGET_QEMU_KILLED, Moment.COPYING, STAYED),
        method=Method.STORAGE,
    ),
    _case(
        "a VM whose move with its disk is aborted by hand stays, disk and all",
        *(Trouble.ABORTED_BY_HAND, Moment.COPYING, GIVEN_UP),
        method=Method.STORAGE,
    ),
)
SCRIPT = (*HOSTS_FAIL, *LINKS_FAIL, *PEOPLE_ACT, *DISKS_MOVE)


class Stage(Protocol):
    """Three hosts and a VM on the first, real or not, with their troubles."""

    vm: str
    pulse: float  # seconds between two steps of the loop

    @property
    def backend(self) -> Backend: ...
    @property
    def power(self) -> Power: ...
    @property
    def clock(self) -> Clock: ...

    def rest(self, seconds: float) -> None:
        """Let time pass, and what is broken be mended when it is due."""
        ...

    def reached(self, moment: Moment) -> bool:
        """Whether the migration is where a case wants it."""
        ...

    def begin(self, trouble: Trouble, lasts: float) -> None:
        """Let it go wrong now, for so long."""
        ...


@dataclass(frozen=True, slots=True)
class Told:
    """What the ledger tells when all is over."""

    outcome: str
    migrations: Sequence[Mapping[str, Any]]
    audit: Sequence[str]  # kinds of lines about the VM, oldest first
    open: int  # intents that have no conclusion

    def __str__(self) -> str:
        return f"{self.outcome}: {[dict(m) for m in self.migrations]}, audit {list(self.audit)}"


class Door:
    """A backend at whose door something happens just before a migration is ordered.

    Each call but that one is the backend's own.
    """

    def __init__(self, backend: Backend, before: Callable[[], None]) -> None:
        self._backend, self._before = backend, before

    def migrate(self, *order: Any) -> None:
        self._before()
        self._backend.migrate(*order)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


@dataclass(slots=True)
class Performance:
    """One case on one stage. The trouble strikes once, at its moment."""

    case: Case
    stage: Stage
    struck: bool = False
    plans: list[float] = field(default_factory=list)

    def play(self, directory: Path) -> Told:
        """From the plan until nothing is under way any more; what the ledger tells then."""
        with (
            Ledger(directory / "ledger.db") as ledger,
            SamplesStore(directory / "samples.db") as samples,
        ):
            self._carry_out(self._loop(ledger, samples))
            return told(ledger, self.stage.vm)

    def _loop(self, ledger: Ledger, samples: SamplesStore) -> Loop:
        stage = self.stage
        found = policy(self.case)
        before = Door(stage.backend, lambda: self._strike(Moment.CHECKED))
        return Loop(
            before,
            stage.power,
            ledger,
            samples,
            stage.clock,
            lambda: found,
            planner=self._plan,
        )

    def _plan(self, _: Snapshot, policy: Policy, __: History, now: float) -> Plan:
        """The case's one move, and never again any."""
        again, case = bool(self.plans), self.case
        self.plans.append(now)
        move = Move(1, self.stage.vm, SOURCE, TARGET, case.method, case.name)
        moves = () if again else (move,)
        if not again:
            self._strike(Moment.PLANNED)
        return Plan(now, policy.name, policy.objective, moves, case.name, 1.0, 0.0)

    def _strike(self, moment: Moment) -> None:
        if not self.struck and moment is self.case.moment:
            self.struck = True
            self.stage.begin(self.case.trouble, self.case.lasts)

    def _carry_out(self, loop: Loop) -> None:
        stage, case = self.stage, self.case
        loop.start()
        loop.look()
        stage.rest(stage.pulse)
        now = stage.clock.monotonic
        end, next_cycle = now() + PATIENCE, now()
        while not self.plans or loop.busy():
            assert now() < end, f"not settled after {PATIENCE:.0f} s"
            if now() >= next_cycle:
                loop.cycle()
                next_cycle = now() + CYCLE
            else:
                loop.step()
            if not self.struck and stage.reached(case.moment):
                self._strike(case.moment)
            stage.rest(stage.pulse)
        assert self.struck, f"it never came to the moment {case.moment}"


def told(ledger: Ledger, vm: str) -> Told:
    """What the ledger has to say of a VM that was to be moved once."""
    reader = Reader(ledger.database)
    rows = reader.migrations(vm=vm)
    assert len(rows) <= 1, rows
    audit = [str(line["kind"]) for line in reversed(reader.events(subject=vm))]
    outcome = str(rows[0]["outcome"]) if rows else "dropped"
    return Told(outcome, rows, audit, len(ledger.recover()))


def policy(case: Case) -> Policy:
    """Spans short enough for a test, a ladder of three steps, everything else out of the way."""
    steps = [
        {"stalls": 1, "downtime": 0.06},
        {"stalls": 2, "downtime": 0.07},
        {"stalls": 3, "then": "abort"},
    ]
    return Policy.model_validate(
        {
            "summary": "test",
            "mode": "act",
            "objective": "quiet",
            "thresholds": {
                "cpu": {"overload": 0.99, "release": 0.98, "landing": 0.97, "idle": 0.01},
                "memory": {"overload": 0.99, "release": 0.98, "landing": 0.97, "idle": 0.01},
            },
            "detection": {
                "window": 4.0,
                "warm_up": 0.0,
                "trusted_after": 0.0,
                "stale_after": 15.0,
                "unknown_hosts": 1.0,
            },
            "capacity": {"spread_factor": 0.0, "memory_reserve_share": 0.0},
            "limits": {"bandwidth": case.bandwidth, "stall": 8.0, "downtime": 0.3},
            "methods": {"post_copy": True, "storage": True},
            "ladder": {"normal": {"downtime": 0.05, "step": steps}},
        }
    )


def holds(case: Case, runs_on: tuple[str, ...], found: Told) -> None:
    """The judgement, the same for every case: the end is allowed, and the ledger knows all."""
    end = End(runs_on, found.outcome)
    assert end in case.allowed, f"{end}\n{found}"
    assert found.open == 0, "an intent is left without a conclusion"
    lines = iter(found.audit)
    assert all(kind in lines for kind in case.audit), found.audit
    for migration in found.migrations:
        assert migration["ended_at"] is not None
        assert migration["detail"]
        assert (migration["outcome"] == "done") == (runs_on == (TARGET,))
