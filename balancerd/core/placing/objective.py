"""How good a layout is, as one number: smaller is better.

A score is the objective's own term plus the strain, which every objective has: use above `release`,
broken rules, and VMs on hosts that are to be emptied. All but the rules, and room for big VMs,
rests on sums to which each host adds by itself: so `course` finds the score after each move.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from balancerd.core.placing.constraints import soft_cost_of_group
from balancerd.core.placing.layout import Bools, Floats, Ints, Layout, share
from balancerd.core.placing.room import Size, stranded
from balancerd.core.policies.choices import Objective

# A host's draw without a power curve: six tenths when idle, in units of its full draw.
IDLE_SHARE = 0.6
_MOST = 1e6  # times its capacity: what a host is asked for beyond makes no plan any worse


@dataclass(frozen=True, slots=True)
class Carried:
    """What hosts carry. Entry i is of host `rows[i]`; one host may come at several moments."""

    rows: Ints
    cpu: Floats  # expected, without its spread
    variance: Floats
    memory: Floats
    vms: Ints
    is_all: bool = False  # each host of the layout, once and as it is there

    @classmethod
    def of(cls, layout: Layout) -> "Carried":
        """What every host carries as the layout is."""
        used = layout.used_cpu, layout.used_variance, layout.used_memory, layout.used_count
        return cls(np.arange(len(layout.hosts), dtype=np.int64), *used, is_all=True)

    def use(self, layout: Layout) -> tuple[Floats, ...]:
        """Shares of the hosts that are used: of CPU with its spread, of memory where it counts."""
        spread = layout.factor * np.sqrt(self.variance)
        cpu = share(self.cpu + spread, layout.cpu_capacity[self.rows])
        if not layout.policy.capacity.enforce_memory:
            return (cpu,)
        return cpu, share(self.memory, layout.memory_capacity[self.rows])


def score(layout: Layout, awake: Bools) -> float:
    """The score of a layout; `awake` are the hosts that are on (or will be)."""
    sums = summands(layout, awake, Carried.of(layout)).sum(axis=1, keepdims=True)
    return (
        float(summed_up(layout, awake, sums)[0]) + fragments(layout, awake) + broken_rules(layout)
    )


def summands(layout: Layout, awake: Bools, carried: Carried) -> Floats:
    """What each of the entries (columns) adds to the sums (rows) that a score rests on."""
    use = carried.use(layout)
    term = _TERMS[layout.policy.objective].summands(layout, awake, carried, use)
    return np.array([_strain(layout, carried, use), *term])


def summed_up(layout: Layout, awake: Bools, sums: Floats) -> Floats:
    """Scores by their sums, a column each; without broken rules and fragments."""
    return np.asarray(sums[0] + _TERMS[layout.policy.objective].whole(layout, awake, sums[1:]))


def fragments(layout: Layout, awake: Bools) -> float:
    """For an objective that cares, the share of the free room in pieces too small for a big VM."""
    if layout.policy.objective is not Objective.DEFRAGMENT:
        return 0.0
    return stranded(layout, Size(*layout.big), awake & layout.receives)


def _strain(layout: Layout, carried: Carried, use: tuple[Floats, ...]) -> Floats:
    """Use above `release` in hosts' worth, plus VMs on draining hosts, each 1."""
    bands, rows = layout.policy.thresholds, carried.rows
    releases = bands.cpu.release, bands.memory.release
    over = [np.maximum(0.0, used - most) for used, most in zip(use, releases, strict=False)]
    strain = sum(over) * layout.gives[rows]
    if layout.snapshot.draining:
        draining = np.zeros(len(layout.hosts), dtype=np.bool_)
        names = layout.snapshot.draining & layout.host_row.keys()
        draining[[layout.host_row[name] for name in names]] = True
        strain += draining[rows] * carried.vms
    return np.asarray(strain)


def broken_rules(layout: Layout) -> float:
    """Misplaced blocks, crowded "apart" groups, scattered "together" groups; soft ones' cost."""
    groups = range(len(layout.groups))
    wrong = len(layout.misplaced()) + sum(broken_group(layout, group) for group in groups)
    return wrong + float(layout.aversion[layout.signature, layout.place].sum())


def broken_by_place(layout: Layout, blocks: Ints, hosts: Ints) -> Floats:
    """What pins and avoidances, hard and soft, make of each of these blocks on its host here."""
    here = layout.signature[blocks], hosts
    return np.asarray(~layout.allowed[here] + layout.aversion[here])


def broken_group(layout: Layout, index: int) -> float:
    """VMs too many in a domain, of an "apart" group; domains too many, of a "together" group."""
    group, counts = layout.groups[index], layout.present[index].values()
    if group.weight:
        return soft_cost_of_group(layout, index)
    if group.kind == "apart":
        return sum(max(0, count - group.at_most) for count in counts)
    return max(0, sum(count > 0 for count in counts) - 1)


def watts(layout: Layout) -> Floats:
    """Draw of every host at its expected load, as if it were on; 1.0 is a host without a curve."""
    return _draw(layout, Carried.of(layout))


def _draw(layout: Layout, carried: Carried) -> Floats:
    rows = carried.rows
    capacity = layout.cpu_capacity[rows]
    use = np.minimum(carried.cpu / np.where(capacity > 0, capacity, 1), 1)
    draw = IDLE_SHARE + (1 - IDLE_SHARE) * use
    for curve, hosts in layout.curves:
        has_it = np.zeros(len(layout.hosts), dtype=np.bool_)
        has_it[hosts] = True
        drawn, last = has_it[rows], len(curve) - 1
        draw[drawn] = np.interp(use[drawn] * last, np.arange(last + 1), curve)
    return np.asarray(draw)


@dataclass(frozen=True, slots=True)
class _Term:
    """An objective's own term: what each entry adds to some sums, and what they come to."""

    summands: Callable[[Layout, Bools, Carried, tuple[Floats, ...]], list[Floats]]
    whole: Callable[[Layout, Bools, Floats], Floats]


def _from_mean(
    layout: Layout, awake: Bools, carried: Carried, use: tuple[Floats, ...]
) -> list[Floats]:
    """For each resource how far hosts that are on lie from where the layout's mean is, and the
    squares: sums of these say how far from their own mean they lie, and lose no digits."""
    found, on = list[Floats](), awake[carried.rows]
    everywhere = use if carried.is_all else Carried.of(layout).use(layout)
    for used, all_used in zip(use, everywhere, strict=True):
        mean = np.minimum(all_used[awake], _MOST).mean() if awake.any() else 0.0
        away = np.where(on, np.minimum(used, _MOST) - mean, 0.0)
        found += [away, away * away]
    return found


def _deviation(_layout: Layout, awake: Bools, sums: Floats) -> Floats:
    """Standard deviation of use over the hosts that are on, CPU and memory added."""
    count = max(int(awake.sum()), 1)
    variance = sums[1::2] / count - (sums[::2] / count) ** 2
    return np.asarray(np.sqrt(np.maximum(variance, 0.0)).sum(axis=0))


def _drawn(
    layout: Layout, awake: Bools, carried: Carried, _use: tuple[Floats, ...]
) -> list[Floats]:
    """Power of the hosts that carry VMs."""
    return [_draw(layout, carried) * (awake[carried.rows] & (carried.vms > 0))]


def _share_of_draw(layout: Layout, awake: Bools, sums: Floats) -> Floats:
    """As a share of all awake hosts' full draw."""
    return np.asarray(sums[0] / max(layout.peak[awake].sum(), 1e-9))


def _crowding(
    layout: Layout, _awake: Bools, carried: Carried, use: tuple[Floats, ...]
) -> list[Floats]:
    """What crowding costs."""
    costs = layout.policy.costs
    over = np.maximum(0.0, use[0] - costs.crowded) * layout.cpu_capacity[carried.rows]
    return [costs.crowding * over]


def _nothing(
    _layout: Layout, _awake: Bools, _carried: Carried, _use: tuple[Floats, ...]
) -> list[Floats]:
    return []


def _added(_layout: Layout, _awake: Bools, sums: Floats) -> Floats:
    return np.asarray(sums.sum(axis=0))


_TERMS: Mapping[Objective, _Term] = MappingProxyType(
    {
        Objective.SPREAD: _Term(_from_mean, _deviation),
        Objective.PACK: _Term(_drawn, _share_of_draw),
        Objective.QUIET: _Term(_crowding, _added),
        Objective.DEFRAGMENT: _Term(_nothing, _added),
        Objective.DRAIN: _Term(_nothing, _added),
    }
)
