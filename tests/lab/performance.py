"""The fault script played: through the production loop, executor and ledger, wherever it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from balancerd.adapters.sqlite.ledger import Ledger
from balancerd.adapters.sqlite.reader import Reader
from balancerd.adapters.sqlite.samples import SamplesStore
from balancerd.core.model import Method, Snapshot
from balancerd.core.past.history import History
from balancerd.core.plan import Move, Plan
from balancerd.core.policies.policy import Policy
from balancerd.loop import Loop
from balancerd.ports import Backend, Clock, Power
from tests.lab.faults import DROPPED, PATIENCE, SOURCE, TARGET, Case, End, Moment, Trouble

CYCLE = 2.0  # seconds between two cycles; in between the loop is stepped


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

    def reborn(self) -> None:
        """Be what another balancerd finds: what the last one began is told to nobody."""
        ...


@dataclass(frozen=True, slots=True)
class Told:
    """What the ledger tells when all is over."""

    outcome: str  # of the migration, or DROPPED
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

    def migrate(self, *order: Any, **more: Any) -> None:
        self._before()
        self._backend.migrate(*order, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


@dataclass(slots=True)
class Performance:
    """One case on one stage. The trouble strikes once, at its moment."""

    case: Case
    stage: Stage
    struck: bool = False

    def play(self, directory: Path) -> Told:
        """From the plan until nothing is under way any more; what the ledger tells then."""
        with (
            Ledger(directory / "ledger.db") as ledger,
            SamplesStore(directory / "samples.db") as samples,
        ):
            if self.case.method is Method.COLD:  # only a drain moves a VM that is shut off
                ledger.set_draining(SOURCE, draining=True, at=self.stage.clock.now())
            if self.case.trouble is Trouble.BALANCERD_KILLED:
                self._begin_and_die(self._loop(ledger, samples))
            self._carry_out(self._loop(ledger, samples), Reader(ledger.database))
            return told(ledger, self.stage.vm)

    def _loop(self, ledger: Ledger, samples: SamplesStore) -> Loop:
        stage = self.stage
        found = policy(self.case.bandwidth)
        before = Door(stage.backend, lambda: self._strike(Moment.CHECKED))
        return Loop(
            before,
            stage.power,
            ledger,
            samples,
            stage.clock,
            lambda: found,
            planner=partial(self._plan, Reader(ledger.database)),
        )

    def _plan(self, reader: Reader, _: Snapshot, policy: Policy, __: History, now: float) -> Plan:
        """The case's one move; again where it was dropped for what the case is not about: on a busy
        machine a host is slow to answer, or tells what cannot be."""
        case, vm = self.case, self.stage.vm
        move = Move(1, vm, SOURCE, TARGET, case.method, case.name)
        moves = () if self._had_its_chance(reader) else (move,)
        if moves:
            self._strike(Moment.PLANNED)
        return Plan(now, policy.name, policy.objective, moves, case.name, 1.0, 0.0)

    def _had_its_chance(self, reader: Reader) -> bool:
        """Whether the move was intended, or dropped for what the case is about."""
        dropped = any(end.outcome == DROPPED for end in self.case.allowed)
        return (self.struck and dropped) or bool(reader.migrations(vm=self.stage.vm))

    def _strike(self, moment: Moment) -> None:
        if not self.struck and moment is self.case.moment:
            self.struck = True
            self.stage.begin(self.case.trouble, self.case.lasts)

    def _begin_and_die(self, loop: Loop) -> None:
        """The life of a balancerd that is no more when the case's moment comes."""
        loop.start()
        for _ in lived(loop, self.stage):
            if self.stage.reached(Moment.COPYING):
                break
        end = self.stage.clock.monotonic() + PATIENCE
        while not self.stage.reached(self.case.moment):
            assert self.stage.clock.monotonic() < end, f"never {self.case.moment}"
            self.stage.rest(self.stage.pulse)
        self.struck = True
        self.stage.reborn()

    def _carry_out(self, loop: Loop, reader: Reader) -> None:
        moment = self.case.moment
        loop.start()
        for _ in lived(loop, self.stage):
            if not self.struck and self.stage.reached(moment):
                self._strike(moment)
            if self.struck and not loop.busy() and self._had_its_chance(reader):
                break


def lived(loop: Loop, stage: Stage) -> Iterator[None]:
    """Let the loop live as in the daemon; whoever watches breaks it off when he has seen enough."""
    loop.look()
    stage.rest(stage.pulse)
    now = stage.clock.monotonic
    end, next_cycle = now() + PATIENCE, now()
    while now() < end:
        if now() >= next_cycle:
            loop.cycle()
            next_cycle = now() + CYCLE
        else:
            loop.step()
        yield
        stage.rest(stage.pulse)
    raise AssertionError(f"not settled after {PATIENCE:.0f} s")


def told(ledger: Ledger, vm: str) -> Told:
    """What the ledger has to say of a VM that was to be moved once."""
    reader = Reader(ledger.database)
    rows = reader.migrations(vm=vm)
    assert len(rows) <= 1, rows
    audit = [str(line["kind"]) for line in reversed(reader.events(subject=vm))]
    outcome = str(rows[0]["outcome"]) if rows else DROPPED
    return Told(outcome, rows, audit, len(ledger.recover()))


def policy(bandwidth: int, per_host: int = 1) -> Policy:
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
            "limits": {
                "bandwidth": bandwidth,
                "per_host": per_host,
                "stall": 8.0,
                "downtime": 0.3,
            },
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
        if migration["outcome"] != "lost":  # then what is active there is but a half
            assert (migration["outcome"] == "done") == (runs_on == (TARGET,))
