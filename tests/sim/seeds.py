"""One seed is one life of a small site: random load, rules, faults, operators, and a balancerd that
is killed at random writes to its ledger. The loop, planner, executor and ledger are production's.

    python -m tests.sim.seeds 17            replay one seed and tell its story
    python -m tests.sim.seeds 7000-7999     a soak, and what happened in it

What a life is made of is drawn in `drawing.py`, `eve.py` is who meddles with it. What must hold is
checked at the moment of every act (`doors.py`) and after every step (`promises.py`); `BrokenError`
names the first that did not. Everything random comes from the seed, so a failure replays exactly.
"""

import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from balancerd.adapters.sim.site import build
from balancerd.adapters.sim.world import World
from balancerd.adapters.sqlite.ledger import Ledger
from balancerd.core.exact import planner_with
from balancerd.core.past.record import Conclusion, Cycle
from balancerd.loop import Loop
from tests.sim.doors import BrokenError, Doors
from tests.sim.drawing import (
    CALM_FROM,
    CLOCK_SET,
    CYCLE,
    FEWEST,
    RECONFIGURED,
    RELOAD,
    START,
    STEPS,
    UNKNOWN_FIRST,
    Locks,
    draw_full_disk,
    draw_policy,
    draw_scenario,
    locks_of,
)
from tests.sim.eve import BOUND, Eve
from tests.sim.mortal import KilledError, MortalLedger, NoSamples, OwnClock, empty_ledger
from tests.sim.promises import Ended, Promises, settled
from tests.sim.solving import Solver

_ENDED = "SELECT vm, host, target, method, autostart FROM intents WHERE id = ? AND kind = 'migrate'"
_ENDS = (
    "SELECT kind, coalesce(method, '') AS method, hand_over, outcome, adopted FROM intents"
    " JOIN conclusions ON conclusions.intent = intents.id"
)


class Life:
    """One seed, from its first cycle to its last."""

    def __init__(self, seed: int, directory: Path, tell: Callable[[str], None]) -> None:
        self.rng = random.Random(seed)
        self.tell = tell
        self.happened: Counter[str] = Counter()
        self.locks = locks_of(seed)
        scenario, locked = draw_scenario(self.rng, self.locks), self.locks is not Locks.NONE
        self.happened.update(f"fault: {fault.kind}" for fault in scenario.faults)
        self.world = World(build(scenario))
        self.policy = draw_policy(self.rng, self.locks)
        self.happened.update(["window"] * bool(self.policy.window))
        for vm in self.world.site.vms[BOUND :: self.rng.choice([2, 3, 99])]:
            self.world.hand.shut_off(vm.name)
        path = directory / f"{seed}.db"
        path.write_bytes(empty_ledger())
        self.ledger = Ledger(path, durable=False)
        self.ledger.__enter__()
        self.mortality = self.rng.choice([0.0, 0.0, 0.002, 0.01])
        rivalry = self.rng.choice([0.0, 0.0, 0.1, 0.3]) if locked else 0.0
        self.eve = Eve(self.world, self.ledger, self.rng, self.note, locked, rivalry)
        self.doors = Doors(self.world, lambda: self.ledger, self.policy, self.eve.be_quicker)
        self.doors.note = lambda kind: self.happened.update([kind])
        self.doors.begun = self.eve.press
        self.doors.approved = self.eve.approved
        self.doors.snapshot = lambda: self.loop._watch._seen
        self.doors.is_paused = lambda: self.eve.paused
        self.clock = OwnClock(self.world)
        self.doors.ahead = lambda: self.clock.ahead
        self.doors.is_full = self.is_full
        self.doors.waited = self._promises_hold
        self.full_from, self.full_until = draw_full_disk(self.rng)
        names = [host.name for host in self.world.site.hosts]
        self.doors.unconfigured = set(names[:1]) if self.rng.random() < UNKNOWN_FIRST else set()
        self.promises = Promises(
            self.world, gone=self.eve.gone, unconfigured=self.doors.unconfigured
        )
        for _ in range(self.rng.choice([0, 0, 2])):
            self.eve.remove()
        self.solver = Solver(self.rng, lambda kind: self.happened.update([kind]))
        self.last_sentence = ""
        self.begin_again()

    def note(self, kind: str, words: str) -> None:
        """Count what happened, and tell of it."""
        self.happened[kind] += 1
        self.tell(f"      {words}")

    def begin_again(self) -> None:
        """A fresh process on the same record."""
        self.world.forget()
        self.mortal = MortalLedger(
            self.ledger, self.rng, self.mortality, self.is_full, self._hear_the_end
        )
        self.loop = Loop(
            self.doors,
            self.doors,
            self.mortal,
            NoSamples(),
            self.clock,
            lambda: self.policy,
            tuple(link for link in self.world.site.links if link.a not in self.doors.unconfigured),
            planner=planner_with(self.solver),
        )
        self.loop.start()

    def is_full(self) -> bool:
        """Whether the ledger's disk takes nothing more now."""
        return START + self.full_from <= self.world.now() < START + self.full_until

    def live(self) -> None:
        """All cycles; BrokenError at the first invariant that does not hold."""
        try:
            for step in range(STEPS):
                if step >= STEPS * CALM_FROM:
                    self.eve.rest()
                    self.mortal.chance = self.mortality = 0.0
                else:
                    self.eve.operate()
                    self._set_the_clock()
                    self._reload()
                    self._reconfigure()
                self._cycle(step)
                self._between_cycles(START + (step + 1) * CYCLE)
            settled(self.ledger, self.policy, self.eve.drained, self.clock.now())
            self._count()
        finally:
            self.ledger.__exit__()

    def _hear_the_end(self, conclusion: Conclusion) -> None:
        """What the record says of a migration that has ended just now has to be true."""
        rows = self.ledger.database.rows(_ENDED, [conclusion.intent])
        if conclusion.at == self.clock.now():
            for vm, source, target, method, autostart in rows:
                ended = Ended(vm, source, target, method, bool(autostart))
                self.happened.update(self.promises.is_true(ended, conclusion))

    def _set_the_clock(self) -> None:
        """Now and then, by an hour; not while anything is under way, as in production."""
        if self.rng.random() < CLOCK_SET and not self.loop.busy():
            step = self.rng.choice([-3600.0, 3600.0])
            self.clock.ahead += step
            self.note("clock set", f"balancerd's clock is set by {step:+.0f} s")

    def _reload(self) -> None:
        """Now and then, another policy."""
        if self.rng.random() < RELOAD:
            self.policy = self.doors.policy = draw_policy(self.rng, self.locks, self.policy)
            words = f"{self.policy.objective}, {self.policy.mode}"
            self.note("another policy", f"another policy is in force: {words}")

    def _reconfigure(self) -> None:
        """Now and then, with a host more or less: a new balancerd on the same record. On a full
        disk none begins: systemd tries again until it does."""
        if self.rng.random() >= RECONFIGURED or self.is_full():
            return
        names, unknown = [host.name for host in self.world.site.hosts], self.doors.unconfigured
        host = self.rng.choice(names)
        if host not in unknown and len(names) - len(unknown) <= FEWEST:
            return
        unknown ^= {host}
        what = "removed from" if host in unknown else "added to"
        self.note(f"host {what} the configuration", f"{host} is {what} the configuration")
        self._mortally(self.begin_again)

    def _cycle(self, step: int) -> None:
        if self.is_full():
            self.note("cycle on a full disk", "the disk is full")
        cycle = self._mortally(self.loop.cycle)
        if isinstance(cycle, Cycle) and cycle.sentence != self.last_sentence:
            self.last_sentence = cycle.sentence
            self.tell(f"{step:4d}  {cycle.sentence}")
        self._promises_hold()

    def _between_cycles(self, until: float) -> None:
        while self.world.now() < until:
            due = self.loop.due()
            wake = until
            if due is not None:
                wake = max(due - self.clock.ahead, self.world.now() + 1.0)
            busy = self.world.now() + 10.0 if self.loop.busy() else until
            self.world.advance(min(until, wake, busy, self.world.next_event()))
            self._promises_hold()
            if self.world.now() < until:
                self._mortally(self.loop.step)
                self._promises_hold()

    def _promises_hold(self) -> None:
        self.promises.hold(self.loop._executions)

    def _mortally(self, act: Callable[[], Any]) -> Any:
        """Do something that may kill the daemon; a new one takes over at once."""
        while True:
            try:
                return act()
            except KilledError:
                self.note("kill of balancerd", "killed, started again")
                act = self.begin_again

    def _count(self) -> None:
        """What balancerd did, by its record."""
        self.happened["set"] += len(self.promises.sets)
        for kind, method, hand_over, outcome, adopted in self.ledger.database.rows(_ENDS):
            ways = [outcome, *([method] if outcome == "done" and method else [])]
            ways += ["adopted"] if adopted else []
            ways += ["handed over"] if hand_over and outcome == "done" else []
            self.happened.update(f"{kind}: {way}" for way in ways)


@dataclass(frozen=True)
class Lived:
    """What did not hold in a life, "" for nothing, and how often each kind of thing happened."""

    fault: str
    happened: Counter[str]


def run(seed: int, tell: Callable[[str], None] = lambda _: None) -> Lived:
    """Live one seed."""
    with tempfile.TemporaryDirectory(prefix="balancerd-seed-") as directory:
        life = Life(seed, Path(directory), tell)
        try:
            life.live()
        except BrokenError as error:
            return Lived(str(error), life.happened)
        except Exception as error:  # noqa: BLE001 (whatever ends the daemon is this seed's fault)
            return Lived(f"{type(error).__name__}: {error}", life.happened)
    return Lived("", life.happened)


def seeds_of(text: str) -> Iterable[int]:
    """The seeds of "17" or "7000-7999"."""
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def main(arguments: Sequence[str]) -> int:
    """Exit code 1 when any seed breaks an invariant."""
    chosen = list(seeds_of(arguments[0]))
    happened: Counter[str] = Counter()
    broken = 0
    for seed in chosen:
        lived = run(seed, print if len(chosen) == 1 else lambda _: None)
        happened += lived.happened
        if lived.fault:
            broken += 1
            print(f"seed {seed}: {lived.fault}\n  replay: python -m tests.sim.seeds {seed}")
    print(", ".join(f"{kind} {count}" for kind, count in sorted(happened.items())))
    print(f"{len(chosen) - broken} passed, {broken} failed")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
