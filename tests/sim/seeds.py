"""One seed is one life of a small site: random load, rules, faults, operators, and a balancerd that
is killed at random writes to its ledger. The loop, planner, executor and ledger are production's.

    python -m tests.sim.seeds 17            replay one seed and tell its story
    python -m tests.sim.seeds 7000-7999     a soak

Invariants are checked at the moment of every act and after every step; `Broken` names the first
that did not hold. Everything random comes from the seed, so a failure replays exactly.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from balancerd.adapters.sim.scenario import FaultKind, Scenario
from balancerd.adapters.sim.site import Site, build
from balancerd.adapters.sim.world import World
from balancerd.adapters.sqlite import operator
from balancerd.adapters.sqlite.ledger import Ledger
from balancerd.adapters.sqlite.proof import verify
from balancerd.core.executing.execution import Execution, Stage
from balancerd.core.model import Method, Snapshot
from balancerd.core.observation import Observation, Presence
from balancerd.core.past.history import Outcome
from balancerd.core.past.record import Cycle, Pause, Request, Verb
from balancerd.core.plan import Move
from balancerd.core.policies.policy import Policy
from balancerd.core.units import GIB
from balancerd.loop import Loop
from balancerd.ports import BackendError
from tests.sim.doorways import crowded, frozen

STEPS = 200  # cycles of a life
CALM_FROM = 0.6  # share of the life after which nothing new goes wrong
CYCLE = 60.0  # seconds of virtual time
START = 1_700_000_000.0
_DONE = (
    "SELECT vm, host, plan, conclusions.at FROM intents"
    " JOIN conclusions ON conclusions.intent = intents.id"
    " WHERE kind = 'migrate' AND outcome = 'done' ORDER BY conclusions.at"
)
PINNED = {"h1", "h2"}  # the hosts of v2
LONGEST_ACT = 1200.0  # seconds after which no migration or power action may still be open
STRIKES = dict.fromkeys(FaultKind, 3) | {FaultKind.MIGRATION_FAILS: 6}


class BrokenError(AssertionError):
    """An invariant that did not hold."""


class KilledError(BaseException):
    """The daemon dies here. Not an Exception, so that no handler of production code survives it."""


# What one life is made of


def draw_scenario(rng: random.Random, *, locked: bool) -> Scenario:
    """A site of 4 to 6 hosts and 8 to 14 VMs, and the faults that will strike it; `locked` is
    whether something forbids two copies of a VM to write to its disks."""
    hosts, vms = rng.randint(4, 6), rng.randint(8, 14)
    return Scenario.model_validate(
        {
            "name": "seed",
            "start": START,
            "duration": STEPS * CYCLE,
            "cycle": CYCLE,
            "hosts": [
                {
                    "name": "h%d",
                    "count": hosts,
                    "first": 1,
                    "cores": 8,
                    "memory": 32 * GIB,
                    "power_curve": [100.0, 250.0],
                }
            ],
            "flavours": [
                {
                    "vcpus": 2,
                    "cpu": 2.0,
                    "memory": rng.choice([2, 3, 4]) * GIB,
                    "dirty_rate": rng.choice([0, 20, 150]) * 10**6,
                }
                for _ in range(3)
            ],
            "vms": {"name": "v%d", "count": vms},
            "network": {"host": 125_000_000, "racks": 2},
            "load": {"step": 300.0, "seed": rng.randrange(10**6), "level": rng.uniform(0.2, 0.8)},
            "power": {"boot": 120.0, "shutdown": 30.0},
            "migration": {
                "setup": 0.5,
                "switch_over": rng.choice([0.0, 2.0]),
                "disk_locks": locked,
            },
            "seed": rng.randrange(10**6),
            "faults": draw_faults(rng),
        }
    )


def draw_faults(rng: random.Random) -> list[dict[str, Any]]:
    """A random part of the catalogue: each life has its own kinds, so that rare pairs meet."""
    span = STEPS * CYCLE * CALM_FROM
    faults: list[dict[str, Any]] = []
    for kind in FaultKind:
        if rng.random() < 0.5:
            continue
        for _ in range(rng.randint(1, STRIKES[kind])):
            begin = rng.uniform(0.05, 0.9) * span
            fault: dict[str, Any] = {
                "kind": kind.value,
                "at": begin,
                "lasts": min(rng.uniform(20.0, 1200.0), span - begin),
            }
            if kind is FaultKind.MIGRATION_FAILS:
                fault |= {
                    "phase": rng.choice(["start", "perform", "gap", "finish"]),
                    "chance": rng.choice([0.3, 1.0]),
                }
            faults.append(fault)
    return faults


def draw_policy(rng: random.Random) -> Policy:
    """Any objective; short spans, so that a life of 200 cycles sees many decisions."""
    return Policy.model_validate(
        {
            "summary": "seed",
            "name": "seed",
            "mode": rng.choice(["act", "act", "act", "advise"]),
            "objective": rng.choice(["spread", "pack", "quiet"]),
            "thresholds": {"imbalance": 0.1},
            "detection": {"window": 180.0, "warm_up": 120.0, "stale_after": 90.0},
            "capacity": {"spread_factor": rng.choice([0.0, 1.0, 2.0])},
            "limits": {
                "per_site": rng.randint(1, 4),
                "per_host": rng.randint(1, 2),
                "cooldown": rng.choice([300.0, 900.0]),
                "cooldown_max": 3600.0,
                "backoff": 120.0,
                "stall": 60.0,
                "veto": rng.choice([0.0, 300.0]),
                "bandwidth": rng.choice([20, 100]) * 10**6,
                "gain": 0.01,
            },
            "power": {
                "sleep_idle": rng.random() < 0.5,
                "keep_on": 1,
                "reserve": rng.randint(0, 1),
                "idle_for": 120.0,
                "min_on": 300.0,
                "min_off": 300.0,
            },
            "constraint": [
                {"kind": "apart", "vms": ["v0", "v1"]},
                {"kind": "pin", "vms": ["v2"], "hosts": sorted(PINNED)},
                {"kind": "together", "vms": ["v3", "v4"]},
            ],
        }
    )


# The doors, watched


@dataclass
class Doors:
    """The world as the loop sees it; every act is checked before it is let through."""

    world: World
    ledger: Callable[[], Ledger]
    policy: Policy
    operate: Callable[[str, str], None]  # told of each VM and target, just before the start
    paused: bool = False
    observed: float = 0.0  # when the loop last looked
    frozen: str = ""  # why nothing may begin on what it saw then
    snapshot: Callable[[], Snapshot | None] = lambda: None  # what the loop made of it
    sent: dict[str, str] = field(default_factory=dict)  # where each VM was sent last

    def observe(self) -> Observation:
        self.observed = self.world.now()
        seen = self.world.observe()
        self.frozen = frozen(seen, lambda h: self.world.states([h])[h], self.policy.detection)
        return seen

    def migrate(
        self,
        vm: str,
        source: str,
        target: str,
        method: Method,
        bandwidth: int,
        downtime: float,
        *,
        hand_over: bool = False,
    ) -> None:
        self._must_be_intended(vm, source, target)
        if method is Method.COLD:
            self._must_be_shut_off(vm, source)
        else:
            self._must_find_room(vm, target)
        for host in (source, target):
            if not self._answers(host):
                raise BrokenError(f"{vm} was sent from {source} to {target}; {host} is silent")
        self._must_be_within_limits(source, target, bandwidth, downtime)
        self.sent[vm] = target
        self.operate(vm, target)
        self.world.migrate(vm, source, target, method, bandwidth, downtime, hand_over=hand_over)

    def set_bandwidth(self, vm: str, host: str, bandwidth: int) -> None:
        if not 0 < bandwidth <= self.policy.limits.bandwidth:
            raise BrokenError(f"{vm} was to send {bandwidth} bytes per second")
        self.world.set_bandwidth(vm, host, bandwidth)

    def _must_be_shut_off(self, vm: str, source: str) -> None:
        copies = self.world.copies(vm)
        if set(copies) != {source} or self.world.running(vm):
            raise BrokenError(f"{vm} was to be moved cold from {source}; there is {copies}")

    def _must_be_within_limits(
        self, source: str, target: str, bandwidth: int, downtime: float
    ) -> None:
        """Enough is known, and what is under way leaves room for one more."""
        limits, now = self.policy.limits, self.world.now()
        if now - self.observed > self.policy.detection.stale_after:
            raise BrokenError(f"a start on what was seen {now - self.observed:.0f} s ago")
        if not 0 < bandwidth <= limits.bandwidth or downtime > limits.downtime:
            raise BrokenError(f"a start with {bandwidth} bytes per second and {downtime} s")
        under_way = self.world.ours()
        crowded = (
            len(under_way) >= limits.per_site
            or sum(way[1] == source for way in under_way) >= limits.per_host
            or sum(way[2] == target for way in under_way) >= limits.per_host
        )
        if crowded:
            raise BrokenError(f"one more from {source} to {target} beside {under_way}")

    def _must_find_room(self, vm: str, target: str) -> None:
        """With all that is there or under way from or to it, the target stays below its limits."""
        snapshot = self.snapshot()
        if snapshot is None:
            return
        cluster, coming = (
            snapshot.cluster,
            {one for one, _, to in self.world.ours() if to == target},
        )
        told = {one for one, at in (*cluster.placement.items(), *self.sent.items()) if at == target}
        here = {one for one in told & cluster.vms.keys() if target in self.world.running(one)}
        fault = crowded(snapshot, self.policy, here | coming | {vm}, target)
        if fault:
            raise BrokenError(f"{vm} was sent to {target}: {fault}")

    def sleep(self, host: str) -> None:
        self._must_be_intended("", host, "")
        running = [vm.name for vm in self.world.site.vms if host in self.world.running(vm.name)]
        if running:
            raise BrokenError(f"{host} was put to sleep with {running} on it")
        self.world.sleep(host)

    def wake(self, host: str) -> None:
        self._must_be_intended("", host, "")
        self.world.wake(host)

    def _must_be_intended(self, vm: str, host: str, target: str) -> None:
        if self.paused:
            raise BrokenError(f"something was begun on {host} while a pause stands")
        if self.frozen:
            raise BrokenError(f"something was begun on {host}, and {self.frozen}")
        found = [
            intent
            for intent in self.ledger().recover()
            if (intent.vm, intent.host, intent.target) == (vm, host, target)
        ]
        if not found:
            raise BrokenError(f"no open intent for {vm or 'power'} {host} {target}")

    def _answers(self, host: str) -> bool:
        location = self.world.locate("", "", [host])
        return location.presence[host] is not Presence.UNREACHABLE

    def destroy(self, vm: str, host: str) -> None:
        if host in self.world.running(vm):
            raise BrokenError(f"the running copy of {vm} on {host} was to be destroyed")
        self.world.destroy(vm, host)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.world, name)


class MortalLedger:
    """A ledger whose process may die before or after any of its writes."""

    WRITES = frozenset(
        {
            "intend",
            "conclude",
            "record_progress",
            "record_inventory",
            "record_plan",
            "set_plan_state",
            "record_power",
            "record_cycle",
            "record_event",
            "answer",
            "set_draining",
        }
    )

    def __init__(self, ledger: Ledger, rng: random.Random, chance: float) -> None:
        self.real = ledger
        self._rng = rng
        self.chance = chance

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.real, name)
        if name not in self.WRITES:
            return call

        def mortal(*arguments: Any, **named: Any) -> Any:
            fate = self._rng.random()
            if fate < self.chance / 2:
                raise KilledError
            result = call(*arguments, **named)
            if fate < self.chance:
                raise KilledError
            return result

        return mortal


class NoSamples:
    """Samples are disposable; a life does without."""

    def append(self, at: float, hosts: Mapping[str, Any], vms: Mapping[str, Any]) -> None:
        """Keep nothing."""

    def hours(self, now: float, span: float) -> tuple[()]:
        return ()

    def recent(self, now: float, span: float) -> tuple[()]:
        """Nothing was kept."""
        return ()

    def roll_up(self, now: float) -> None:
        """Nothing to fold."""


@cache
def empty_ledger() -> bytes:
    """The file of a ledger in which nothing stands yet: making its schema takes a while."""
    with tempfile.TemporaryDirectory(prefix="balancerd-ledger-") as directory:
        path = Path(directory) / "ledger.db"
        with Ledger(path, durable=False):
            pass
        return path.read_bytes()


# The life


class Life:
    """One seed, from its first cycle to its last."""

    def __init__(self, seed: int, directory: Path, tell: Callable[[str], None]) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.tell = tell
        self.locked = seed % 4 != 3
        scenario = draw_scenario(self.rng, locked=self.locked)
        self.site: Site = build(scenario)
        self.world = World(self.site)
        self.policy = draw_policy(self.rng)
        for vm in self.site.vms[3 :: self.rng.choice([2, 3, 99])]:
            self.world.hand.shut_off(vm.name)
        self.path = directory / f"{seed}.db"
        self.path.write_bytes(empty_ledger())
        self.ledger = Ledger(self.path, durable=False)
        self.ledger.__enter__()
        self.mortality = self.rng.choice([0.0, 0.0, 0.002, 0.01])
        self.doors = Doors(self.world, lambda: self.ledger, self.policy, self._operate_at_the_worst)
        self.doors.snapshot = lambda: self.loop._watch._seen
        self.rivalry = self.rng.choice([0.0, 0.0, 0.1, 0.3])  # how often an operator is quicker
        if not self.locked:
            self.rivalry = 0.0
        self.calm = False
        self.begun_by_hand: set[str] = set()  # VMs that an operator began to migrate
        self.last_sentence = ""
        self.apart_kept = False  # while two that are to be apart run, and do so apart
        self.pin_kept = False  # from when the VM that is pinned is where it has to be
        self.drained: set[str] = set()  # hosts that were drained at any time
        self.begin_again()

    def begin_again(self) -> None:
        """A fresh process on the same record."""
        self.world.forget()
        self.mortal = MortalLedger(self.ledger, self.rng, self.mortality)
        self.loop = Loop(
            self.doors,
            self.doors,
            self.mortal,  # type: ignore[arg-type]
            NoSamples(),
            self.world,
            lambda: self.policy,
            self.site.links,
        )
        self.loop.start()

    def live(self) -> None:
        """All cycles; BrokenError at the first invariant that does not hold."""
        try:
            for step in range(STEPS):
                self.calm = step >= STEPS * CALM_FROM
                if self.calm:
                    self._abort_own()
                    self.mortal.chance = self.mortality = 0.0
                    self.doors.paused and self._resume()
                else:
                    self._operate()
                self._cycle(step)
                self._between_cycles(START + (step + 1) * CYCLE)
            self._everything_is_settled()
        finally:
            self.ledger.__exit__()

    def _cycle(self, step: int) -> None:
        cycle = self._mortally(self.loop.cycle)
        if isinstance(cycle, Cycle) and cycle.sentence != self.last_sentence:
            self.last_sentence = cycle.sentence
            self.tell(f"{step:4d}  {cycle.sentence}")
        self._invariants_hold()

    def _between_cycles(self, until: float) -> None:
        while self.world.now() < until:
            due = self.loop.due()
            wake = max(due, self.world.now() + 1.0) if due is not None else until
            busy = self.world.now() + 10.0 if self.loop.busy() else until
            self.world.advance(min(until, wake, busy, self.world.next_event()))
            self._invariants_hold()
            if self.world.now() < until:
                self._mortally(self.loop.step)
                self._invariants_hold()

    def _mortally(self, act: Callable[[], Any]) -> Any:
        """Do something that may kill the daemon; a new one takes over at once."""
        while True:
            try:
                return act()
            except KilledError:
                self.tell("      killed, started again")
                act = self.begin_again

    # What operators do

    def _operate(self) -> None:
        roll = self.rng.random()
        if self.doors.paused:
            if roll < 0.3:
                self._resume()
        elif roll < 0.02:
            operator.begin_pause(self.ledger.database, Pause(self.world.now(), "eve", "test"))
            self.doors.paused = True
            self.tell("      eve pauses")
        elif roll < 0.05:
            self._migrate_by_hand()
        elif roll < 0.07:
            host = self.rng.choice(self.site.hosts).name
            self._ask(self.rng.choice([Verb.DRAIN, Verb.UNDRAIN]), host)
            self.drained.add(host)
        elif roll < 0.08:
            self._meddle()
        elif roll < 0.09:
            self._ask(Verb.ABORT, self.rng.choice(self.site.vms).name)
        elif roll < 0.3:
            waiting = self.ledger.open_plans()
            if waiting:
                self._ask(Verb.APPROVE, str(waiting[-1]))

    def _resume(self) -> None:
        operator.end_pauses(self.ledger.database, self.world.now(), "eve")
        self.doors.paused = False
        self.tell("      eve resumes")

    def _ask(self, verb: Verb, subject: str) -> None:
        operator.ask(self.ledger.database, Request(0, self.world.now(), verb, subject, "eve"))
        self.tell(f"      eve: {verb} {subject}")

    def _operate_at_the_worst(self, vm: str, target: str) -> None:
        """An operator begins his own migration of a VM between our check and our start of it."""
        bound = vm in [vm.name for vm in self.site.vms[:3]]
        if self.calm or bound or self.rng.random() >= self.rivalry:
            return
        others = [host.name for host in self.site.hosts if host.name != target]
        theirs = self.rng.choice([target, *others])
        self.world.hand.migrate(vm, theirs, cap=self.rng.choice([0.0, 2e6, 6e6]))
        self.begun_by_hand.add(vm)
        self.tell(f"      eve moves {vm} to {theirs} by hand, at the worst moment")

    def _abort_own(self) -> None:
        """Operators give up the migrations of theirs that will never end."""
        for vm in sorted(self.begun_by_hand):
            self.world.hand.abort(vm)
        self.begun_by_hand.clear()

    def _migrate_by_hand(self) -> None:
        """An operator's own virsh, at the worst moment; not for VMs that a rule binds.

        Nor where nothing locks disks: her migrations hand nothing over, and may end in two copies.
        """
        if not self.locked:
            return
        vm = self.rng.choice(self.site.vms[3:]).name
        hosts = self.world.running(vm)
        if not hosts:
            return
        target = self.rng.choice([host.name for host in self.site.hosts if host.name not in hosts])
        with suppress(BackendError):  # her libvirt may say no, too
            self.world.hand.migrate(vm, target)
            self.tell(f"      eve moves {vm} to {target} by hand")

    def _meddle(self) -> None:
        """Operators stop VMs and abort moves, leave definitions lying about; VMs crash."""
        vm, host = self.rng.choice(self.site.vms).name, self.rng.choice(self.site.hosts).name
        act = self.rng.choice(["pause", "shut_off", "crash", "define", "abort", "start"])
        if act == "define":
            self.world.hand.define(vm, host)
        elif act == "start":
            self._start_where_it_is_defined(vm)
        else:
            getattr(self.world.hand, act)(vm)
        self.tell(f"      eve: {act} {vm} {host}")

    def _start_where_it_is_defined(self, vm: str) -> None:
        """An operator's `virsh start` of what is shut off; not for VMs that a rule binds."""
        off = [at for at, copy in self.world.copies(vm).items() if copy is Presence.SHUTOFF]
        if off and vm not in [one.name for one in self.site.vms[:3]]:
            self.world.hand.start(vm, self.rng.choice(off))

    # What must hold

    def _invariants_hold(self) -> None:
        for violation in self.world.violations:
            raise BrokenError(f"{violation.kind}: {violation.detail}")
        places = {vm.name: self.world.running(vm.name) for vm in self.site.vms}
        for vm, running in places.items():
            if len(running) > 1:
                raise BrokenError(f"{vm} runs on {' and '.join(running)}")
            if not running and set(self.world.copies(vm).values()) <= {Presence.INCOMING}:
                raise BrokenError(f"nothing is left of {vm}")
        self._rules_hold(places)
        for execution in self.loop._executions:
            self._sets_hold(execution)

    def _sets_hold(self, execution: Execution) -> None:
        """Of no set a part began, and another was refused before the set was committed."""
        moves = [task for task in execution.tasks.values() if isinstance(task.action, Move)]
        begun = {task.move.set_number: task.move.vm for task in moves if task.intent}
        for task in moves:
            half = task.move.set_number and task.move.set_number in begun
            if half and task.stage is Stage.DROPPED and not task.cleared:
                raise BrokenError(
                    f"{begun[task.move.set_number]} began, {task.move.vm} did not: {task.detail}"
                )

    def _rules_hold(self, places: Mapping[str, tuple[str, ...]]) -> None:
        """What the policy forbids did not come about; all VMs of rules start where they may be."""
        # Of two that met while one was down, whoever started that one again brought them together;
        # and met they have as soon as one of them is on its way to where the other is.
        under_way = {vm: target for vm, _, target in self.world.ours()}
        one, other = (set(places[vm]) | {under_way.get(vm, "")} - {""} for vm in ("v0", "v1"))
        if self.apart_kept and one & other:
            raise BrokenError(f"v0 and v1 are both on {min(one & other)}, or on their way there")
        self.apart_kept = bool(one and other) and not one & other
        pinned = set(places["v2"])
        if self.pin_kept and pinned and not pinned <= PINNED:
            raise BrokenError(f"v2 left {sorted(PINNED)} for {sorted(pinned)}")
        self.pin_kept = self.pin_kept or (bool(pinned) and pinned <= PINNED)

    def _everything_is_settled(self) -> None:
        """Liveness: once nothing goes wrong any more, every intent is closed and the site rests."""
        for intent in self.ledger.recover():
            age = self.world.now() - intent.at
            if age > LONGEST_ACT:
                raise BrokenError(f"open for {age:.0f} s: {intent.kind} {intent.vm} {intent.host}")
        fault = verify(self.ledger.database).fault
        if fault:
            raise BrokenError(f"the audit: {fault}")
        self._cooldowns_were_kept()

    def _cooldowns_were_kept(self) -> None:
        done = Counter(
            move.vm
            for move in self.ledger.history(self.world.now()).moves
            if move.outcome is Outcome.DONE and move.source not in self.drained
        )
        if done and max(done.values()) > self.policy.limits.per_vm_per_day:
            raise BrokenError(f"moved too often in a day: {done.most_common(1)}")
        self._moved_vms_rested()

    def _moved_vms_rested(self) -> None:
        """A VM that was parked goes on in the same plan; no other moves again within its rest."""
        last: dict[str, tuple[float, int | None]] = {}
        for vm, source, plan, at in self.ledger.database.rows(_DONE):
            moved, made = last.get(vm, (0.0, None))
            goes_on = plan is not None and plan == made
            rested = at - moved
            last[vm] = at, plan
            if rested < self.policy.limits.cooldown and source not in self.drained and not goes_on:
                raise BrokenError(f"{vm} moved again after {rested:.0f} s")


def run(seed: int, tell: Callable[[str], None] = lambda _: None) -> str:
    """Live one seed; "" or what did not hold."""
    with tempfile.TemporaryDirectory(prefix="balancerd-seed-") as directory:
        try:
            Life(seed, Path(directory), tell).live()
        except BrokenError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 (whatever ends the daemon is this seed's fault)
            return f"{type(error).__name__}: {error}"
    return ""


def seeds_of(text: str) -> Iterable[int]:
    """The seeds of "17" or "7000-7999"."""
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def main(arguments: Sequence[str]) -> int:
    """Exit code 1 when any seed breaks an invariant."""
    chosen = list(seeds_of(arguments[0]))
    broken = 0
    for seed in chosen:
        fault = run(seed, print if len(chosen) == 1 else lambda _: None)
        if fault:
            broken += 1
            print(f"seed {seed}: {fault}\n  replay: python -m tests.sim.seeds {seed}")
    print(f"{len(chosen) - broken} passed, {broken} failed")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
