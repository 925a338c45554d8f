"""Composition root of a simulated run: the production loop over a world with its own time.

Beside `daemon`: the same loop, planner, executor and record, but the clock stands until everything
due at a moment is done, and then jumps to the next moment at which something is.
"""

import gc
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from math import ceil, inf
from typing import Any

from balancerd.adapters.sim.rules import RuleWatch
from balancerd.adapters.sim.score import Score, score
from balancerd.adapters.sim.site import Site
from balancerd.adapters.sim.world import World
from balancerd.core.model import PowerState
from balancerd.core.past.record import Cycle
from balancerd.core.policies.policy import Policy
from balancerd.engines import planner as production_planner
from balancerd.loop import Loop, Planner
from balancerd.ports import Ledger, Samples

POLL = 10.0  # seconds between two looks at migrations that are under way

Watcher = Callable[[float, Cycle], None]  # share of the run that is done, the newest cycle
Batch = Callable[[], AbstractContextManager[None]]  # what is recorded inside is committed at once


@dataclass(frozen=True, slots=True)
class Result:
    """What a simulated run came to. The score is of the world, the rest of the program itself."""

    scenario: str
    policy: str
    score: Score
    broken_rules: int  # times that a constraint was kept before and then was not
    plans: int
    cycles: int
    plan_seconds_p50: float
    plan_seconds_p99: float
    plan_seconds_max: float
    wall_seconds: float
    cpu_seconds: float
    peak_rss_bytes: int

    def as_json(self) -> dict[str, Any]:
        """One flat object, the score's figures among the others; broken rules are violations."""
        whole: dict[str, Any] = asdict(self)
        figures: dict[str, Any] = whole.pop("score")
        figures["violations"] += self.broken_rules
        return {"scenario": self.scenario, "policy": self.policy} | figures | whole


def simulate(
    site: Site,
    policy: Policy,
    ledger: Ledger,
    samples: Samples,
    watch: Watcher | None = None,
    planner: Planner = production_planner,
    batch: Batch = nullcontext,
) -> Result:
    """Live through a scenario under a policy; the record is written as by the daemon.

    Another planner only decides: it acts through the same loop, checks and record. What happens
    from one look to the next is one `batch`: where nobody is really moved nothing has to be on disk
    before it is done.
    """
    run = _Run(site, policy, ledger, samples, planner)
    with _few_collections():
        run.live(watch or (lambda _share, _cycle: None), batch)
    return run.result()


def without_balancing(site: Site) -> Score:
    """The same site and load, and nobody who does anything: hosts stay on as they are placed."""
    world = World(site)
    world.advance(site.scenario.start + site.scenario.duration)
    return score(world)


class _Run:
    """One run, from its start to its end."""

    def __init__(
        self, site: Site, policy: Policy, ledger: Ledger, samples: Samples, planner: Planner
    ) -> None:
        self._scenario, self._policy = site.scenario, policy
        self._ledger = ledger
        self.world = World(site)
        self._loop = Loop(
            backend=self.world,
            power=self.world,
            ledger=ledger,
            samples=samples,
            clock=self.world,
            policy=lambda: policy,
            links=site.links,
            planner=planner,
        )
        self._begun = (time.perf_counter(), time.process_time())
        self._rules = RuleWatch(policy)
        self._plans: set[int] = set()
        self._plan_seconds: list[float] = []
        self._cycles = 0
        self._told = len(self.world.powers())

    def live(self, watch: Watcher, batch: Batch) -> None:
        """From the scenario's start to its end."""
        start, end = self._scenario.start, self._scenario.start + self._scenario.duration
        self._loop.start()
        self._rules.check(self.world)
        settle = self._scenario.settle
        next_cycle, next_look = start + settle, start if settle else inf
        while self.world.now() < end:
            with batch():
                if self.world.now() >= next_look:
                    self._loop.look()
                    next_look += self._scenario.cycle
                if self.world.now() >= next_cycle:
                    self._cycle(watch)
                    next_cycle += self._scenario.cycle
                self._go_on(min(next_cycle, next_look, end))
        self._loop.step()

    def _go_on(self, until: float) -> None:
        """Let time pass, and carry on what is under way."""
        while self.world.now() < until:
            self.world.advance(min(until, self._next_step()))
            self._rules.check(self.world)
            self._tell_power()
            if self.world.now() < until:
                self._loop.step()

    def _cycle(self, watch: Watcher) -> None:
        cycle = self._loop.cycle()
        self._cycles += 1
        if cycle.plan:
            self._plans.add(cycle.plan)
        if cycle.plan_seconds is not None:
            self._plan_seconds.append(cycle.plan_seconds)
        watch(self.world.monotonic() / self._scenario.duration, cycle)

    def _next_step(self) -> float:
        """When the loop has something to do between two cycles."""
        now, due = self.world.now(), self._loop.due()
        event = self.world.next_event()
        poll = now + POLL if self._loop.busy() else inf
        # What is due already was not settled by the step just done: ask again, but not at once.
        return min(event, poll, inf if due is None else max(due, now + 1.0))

    def _tell_power(self) -> None:
        """Put hosts' power changes into the record at the time when they took place; the loop
        would only see them when it looks."""
        powers = self.world.powers()
        for at, host, on in powers[self._told :]:
            self._ledger.record_power(host, PowerState.ON if on else PowerState.OFF, at)
        self._told = len(powers)

    def result(self) -> Result:
        """The run's figures so far."""
        times = sorted(self._plan_seconds)
        return Result(
            scenario=self._scenario.name,
            policy=self._policy.name,
            score=score(self.world),
            broken_rules=self._rules.broken,
            plans=len(self._plans),
            cycles=self._cycles,
            plan_seconds_p50=_quantile(times, 0.50),
            plan_seconds_p99=_quantile(times, 0.99),
            plan_seconds_max=_quantile(times, 1.00),
            wall_seconds=time.perf_counter() - self._begun[0],
            cpu_seconds=time.process_time() - self._begun[1],
            peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        )


def _quantile(ordered: list[float], share: float) -> float:
    """The smallest value that at least this share of all do not exceed; 0 of none."""
    return ordered[max(ceil(share * len(ordered)) - 1, 0)] if ordered else 0.0


@contextmanager
def _few_collections() -> Iterator[None]:
    """Observations are many small values without cycles; looking for cycles among them is waste."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
