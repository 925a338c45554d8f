"""The numbers that a decision about a VM rests on."""

from collections.abc import Iterator
from math import sqrt

import numpy as np

from balancerd.core.columns import rows_where
from balancerd.core.explain.answer import Decision, Fact
from balancerd.core.past.history import WEEK, rests_until
from balancerd.core.placing.constraints import accepts, refusing
from balancerd.core.placing.layout import Bools, Layout
from balancerd.core.placing.objective import score
from balancerd.core.plan import Assessment, Verdict
from balancerd.core.policies.choices import Objective
from balancerd.core.policies.rule import matches
from balancerd.core.policies.tags import rules_in_force
from balancerd.core.units import format_size, format_time

# Objectives whose plans have to better the score; the others weigh moves by [costs], or not at all.
_BY_SCORE = frozenset({Objective.SPREAD, Objective.DEFRAGMENT})
CLOSEST = 64  # hosts whose score is worked out to find the best for a VM


def of_vm(decision: Decision, layout: Layout, vm: str) -> Fact:
    """What the VM uses, and what it is expected to."""
    load, block = decision.snapshot.loads.get(vm), layout.block_of[vm]
    cpu, spread = float(layout.cpu[block]), sqrt(float(layout.variance[block]))
    memory = int(layout.memory[block])
    together = len(layout.blocks[block])
    name = f"{vm} and {together - 1} that move with it" if together > 1 else vm
    now = f"{load.cpu:.2f} cores now, {load.cpu_mean:.2f} in the mean; " if load else "no load; "
    text = f"{name}: {now}{cpu:.2f} ± {spread:.2f} expected, {format_size(memory)} of memory"
    numbers: dict[str, float] = {
        "cpu_expected_reference_cores": cpu,
        "spread_reference_cores": spread,
        "memory_bytes": memory,
    }
    if load:
        numbers["cpu_reference_cores"] = load.cpu
        numbers["cpu_mean_reference_cores"] = load.cpu_mean
    return Fact("VM", text, numbers)


def of_host(decision: Decision, host: str, about: str = "host") -> Fact:
    """The verdict on a host, and what it is measured against."""
    bands = decision.policy.thresholds
    found = next((a for a in decision.plan.assessments if a.host == host), None)
    if found is None:
        return Fact(about, f"{host} was not assessed")
    text = (
        f"{host} is {found.verdict} ({found.reason}): CPU {found.cpu:.0%} now, "
        f"{found.cpu_mean:.0%} in the mean, {found.cpu_expected:.0%} expected; "
        f"memory {found.memory:.0%}; {bands.cpu.overload:.0%} of CPU is overload, "
        f"a move may make it {bands.cpu.landing:.0%} at most"
    )
    return Fact(about, text, _numbers(found))


def _numbers(found: Assessment) -> dict[str, float]:
    return {
        "cpu_utilisation": found.cpu,
        "cpu_mean_utilisation": found.cpu_mean,
        "cpu_expected_utilisation": found.cpu_expected,
        "memory_utilisation": found.memory,
        "memory_shortage_bytes": found.shortage,
        "vms": found.vms,
    }


def of_moves(decision: Decision, vm: str) -> Iterator[Fact]:
    """When the VM last moved, and how long it rests for that."""
    moves = decision.history.by_vm().get(vm)
    if not moves:
        return
    of_the_week = sum(move.at > decision.plan.at - WEEK for move in moves)
    last, until = moves[-1], rests_until(moves, decision.policy.limits)
    rests = (
        f"rests until {format_time(round(until))}" if until > decision.plan.at else "may move again"
    )
    way = f"{last.source} > {last.target}, {last.outcome}"
    text = f"last moved at {format_time(round(last.at))}, {way}; {rests}"
    yield Fact("cool-down", text, {"moves_in_a_week": of_the_week})


def of_rules(decision: Decision, vm: str) -> Iterator[Fact]:
    """The rules that speak of the VM, those of its own tags and of other VMs' included."""
    for rule in rules_in_force(decision.snapshot.cluster, decision.policy):
        if rule.vms and matches(vm, rule.vms):
            where = f": {', '.join(rule.hosts)}" if rule.hosts else f", per {rule.scope}"
            soft = f", soft, weight {rule.weight:g}" if rule.weight else ""
            yield Fact("rule", f"{rule.kind} {rule.name}{where}{soft}")


def of_targets(decision: Decision, layout: Layout, vm: str) -> Iterator[Fact]:
    """How many hosts would take the VM, why the others would not, and what the best would bring."""
    block = layout.block_of[vm]
    rows = rows_where(np.arange(len(layout.hosts)) != layout.place[block])
    open_ = accepts(layout, block)
    counts = {name: len(refused) for name, refused in refusing(layout, block, rows).items()}
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    others = ", ".join(f"{name} {count}" for name, count in most)
    text = f"{int(open_.sum())} of {len(rows)} other hosts would take it"
    refused = {f"refused_{name}".replace(" ", "_").lower(): float(n) for name, n in most}
    numbers = {"hosts_open": float(open_.sum()), **refused}
    yield Fact("targets", f"{text}; the others: {others}" if others else text, numbers)
    best = best_target(decision, layout, block, open_)
    if best is not None:
        yield of_gain(decision, layout, block, best)


def of_gain(decision: Decision, layout: Layout, block: int, host: int) -> Fact:
    """What a single move would do to the score, and what a plan has to bring."""
    before, after = scores(decision, layout, block, host)
    text = f"alone on {layout.hosts[host]} it would make the score {before:.4g} -> {after:.4g}"
    numbers, policy = {"score": before, "score_after": after}, decision.policy
    if policy.objective in _BY_SCORE:
        asked = policy.limits.gain
        said = f"a plan has to better it by {asked:.0%}"
        return Fact("gain", f"{text}; {said}", numbers | {"gain_asked": asked})
    return Fact("gain", f"{text}; {policy.objective} does not go by it", numbers)


def best_target(decision: Decision, layout: Layout, block: int, open_: Bools) -> int | None:
    """The open host with the smallest score after, of those with most room; None without any."""
    rows = rows_where(open_)
    room = (layout.expected_cpu() + layout.expected_memory())[rows]
    closest = rows[np.argsort(room, kind="stable")[:CLOSEST]]
    return min(
        (int(row) for row in closest),
        key=lambda row: (scores(decision, layout, block, row)[1], row),
        default=None,
    )


def scores(decision: Decision, layout: Layout, block: int, host: int) -> tuple[float, float]:
    """The score as it is, and once the block is on the host."""
    asleep = (Verdict.ASLEEP, Verdict.UNKNOWN)
    verdicts = {a.host: a.verdict for a in decision.plan.assessments}
    awake = np.array([verdicts.get(name) not in asleep for name in layout.hosts], dtype=np.bool_)
    moved = layout.copy()
    moved.move(block, host)
    return score(layout, awake), score(moved, awake)
