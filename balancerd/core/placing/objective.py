"""How good a layout is, as one number: smaller is better.

A score is the objective's own term plus the strain, which every objective has: use above `release`,
broken rules, and VMs on hosts that are to be emptied.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from balancerd.core.placing.constraints import soft_cost_of_group
from balancerd.core.placing.layout import Bools, Floats, Layout
from balancerd.core.placing.nodes import Seat
from balancerd.core.placing.room import Size, stranded
from balancerd.core.policies.choices import Objective

# A host's draw without a power curve: six tenths when idle, in units of its full draw.
IDLE_SHARE = 0.6


def score(layout: Layout, awake: Bools) -> float:
    """The score of a layout; `awake` are the hosts that are on (or will be)."""
    return Score(layout, awake).value()


@dataclass(slots=True)
class Score:
    """A layout's score, kept up to date while blocks move."""

    layout: Layout
    awake: Bools
    broken: float = field(init=False)

    def __post_init__(self) -> None:
        self.broken = broken_rules(self.layout)

    def value(self) -> float:
        """The score as the layout is now."""
        use = _Use.of(self.layout)
        term = _TERMS[self.layout.policy.objective](self.layout, self.awake, use)
        return term + _strain(self.layout, use) + self.broken

    def move(self, block: int, target: int, seat: Seat | None = None) -> None:
        """Move a block of the layout; `seat`: to these NUMA nodes of the target."""
        self.broken -= _broken_by(self.layout, block)
        self.layout.move(block, target, seat)
        self.broken += _broken_by(self.layout, block)


@dataclass(frozen=True, slots=True)
class _Use:
    """Shares of hosts that are used; of memory None where it does not count."""

    cpu: Floats
    memory: Floats | None

    @classmethod
    def of(cls, layout: Layout) -> "_Use":
        is_enforced = layout.policy.capacity.enforce_memory
        return cls(layout.expected_cpu(), layout.expected_memory() if is_enforced else None)


def _strain(layout: Layout, use: _Use) -> float:
    """Use above `release` in hosts' worth, plus VMs on draining hosts, each 1."""
    bands = layout.policy.thresholds
    over = np.maximum(0.0, use.cpu - bands.cpu.release) @ layout.gives
    if use.memory is not None:
        over += np.maximum(0.0, use.memory - bands.memory.release) @ layout.gives
    draining = [layout.host_row[h] for h in layout.snapshot.draining if h in layout.host_row]
    left = sum(int(layout.used_count[row]) for row in draining)
    return float(over) + left


def broken_rules(layout: Layout) -> float:
    """Misplaced blocks, crowded "apart" groups, scattered "together" groups; soft ones' cost."""
    groups = range(len(layout.groups))
    wrong = len(layout.misplaced()) + sum(_broken_group(layout, group) for group in groups)
    return wrong + float(layout.aversion[layout.signature, layout.place].sum())


def _broken_by(layout: Layout, block: int) -> float:
    """The part of `broken_rules` that a block can change by moving."""
    here = layout.signature[block], layout.place[block]
    groups = layout.groups_of.get(block, ())
    wrong = float(not layout.allowed[here]) + float(layout.aversion[here])
    return wrong + sum(_broken_group(layout, group) for group, _ in groups)


def _broken_group(layout: Layout, index: int) -> float:
    """VMs too many in a domain, of an "apart" group; domains too many, of a "together" group."""
    group, counts = layout.groups[index], layout.present[index].values()
    if group.weight:
        return soft_cost_of_group(layout, index)
    if group.kind == "apart":
        return sum(max(0, count - group.at_most) for count in counts)
    return max(0, sum(count > 0 for count in counts) - 1)


def watts(layout: Layout) -> Floats:
    """Draw of every host at its expected load, as if it were on; 1.0 is a host without a curve."""
    use = np.minimum(layout.used_cpu / np.where(layout.cpu_capacity > 0, layout.cpu_capacity, 1), 1)
    draw = IDLE_SHARE + (1 - IDLE_SHARE) * use
    for curve, rows in layout.curves:
        last = len(curve) - 1
        draw[rows] = np.interp(use[rows] * last, np.arange(last + 1), curve)
    return np.asarray(draw)


def _spread(_layout: Layout, awake: Bools, use: _Use) -> float:
    """Standard deviation of use over the hosts that are on, CPU and memory added."""
    if not awake.any():
        return 0.0
    deviation = _deviation(use.cpu[awake])
    if use.memory is not None:
        deviation += _deviation(use.memory[awake])
    return deviation


_MOST = 1e6  # times its capacity: what a host is asked for beyond makes no plan any worse


def _deviation(values: Floats) -> float:
    """Like `np.std`, at a third of its price for a hundred hosts: plans ask after every move."""
    believed = np.minimum(values, _MOST)
    from_mean = believed - believed.sum() / len(believed)
    return math.sqrt(from_mean @ from_mean / len(values))


def _pack(layout: Layout, awake: Bools, _use: _Use) -> float:
    """Power of the hosts that carry VMs, as a share of all awake hosts' full draw."""
    draw = watts(layout)
    carrying = awake & (layout.used_count > 0)
    return float(draw[carrying].sum() / max(layout.peak[awake].sum(), 1e-9))


def _quiet(layout: Layout, _awake: Bools, use: _Use) -> float:
    """What crowding costs."""
    costs = layout.policy.costs
    over = np.maximum(0.0, use.cpu - costs.crowded) * layout.cpu_capacity
    return costs.crowding * float(over.sum()) if costs.crowding else 0.0


def _drain(_layout: Layout, _awake: Bools, _use: _Use) -> float:
    return 0.0


def _defragment(layout: Layout, awake: Bools, _use: _Use) -> float:
    """Share of the free room that is in pieces too small for a big VM."""
    return stranded(layout, Size(*layout.big), awake & layout.receives)


_TERMS = {
    Objective.SPREAD: _spread,
    Objective.PACK: _pack,
    Objective.DEFRAGMENT: _defragment,
    Objective.QUIET: _quiet,
    Objective.DRAIN: _drain,
}
