"""Each host's verdict under the dual threshold, with the numbers behind it.

A host is overloaded only if its CPU is above `overload` now *and* in the window's mean, and not
just as its VMs' loads waver around what they usually are (near all of its CPU: if it has room for
that, see `wavers`); or if its VMs' vCPUs have to wait, or if
its VMs are charged more memory than `overload`, or visibly lack memory: guests swap while balloons
hold what is theirs, or the host itself stands still for it (PSI, which swapping is part of, and
which only the host that balancerd runs on tells). Pressure on CPU says nothing that waiting vCPUs
do not say better. What was not seen for `warm_up` seconds gives no verdict to act on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite, sqrt

import numpy as np

from balancerd.core.columns import Floats, loads_of, rows_where, taken
from balancerd.core.model import ABSURD_CORES, Gap, Host, Load, PowerState, Snapshot
from balancerd.core.placing import wavers
from balancerd.core.placing.layout import Layout
from balancerd.core.placing.survey import ground
from balancerd.core.plan import Assessment, Verdict
from balancerd.core.policies.policy import Policy
from balancerd.core.same import Same
from balancerd.core.units import format_duration, format_size

_OFF = (PowerState.OFF, PowerState.WAKING, PowerState.SLEEPING)

WAVER = 5.0  # standard deviations (as they are measured, which is late) beyond which it is no waver


@dataclass(frozen=True, slots=True)
class Strain:
    """What of a host's contention shows already."""

    waiting: float  # share of the time that its VMs' vCPUs stood ready and were not run
    shortage: float  # bytes of memory that it and its VMs lack, and that it does not have free
    cramped: float  # reference cores that it lacks for its VMs' wavers; NaN: it does not waver


def assess(snapshot: Snapshot, policy: Policy, now: float) -> tuple[Assessment, ...]:
    """The verdict on every host, in order of their names."""
    return assess_layout(ground(snapshot, policy), now)


def assess_layout(layout: Layout, now: float) -> tuple[Assessment, ...]:
    """The same, where the layout was already drawn up."""
    figures = (layout.settled_cpu(), layout.settled_memory(), *_strains(layout))
    lacks = wavers.lacking(layout)
    gaps = {gap.name: gap for gap in reversed(layout.snapshot.gaps) if gap.subject == "host"}
    found = list(_asleep(Same(layout.snapshot.cluster.hosts), layout.hosts))
    busy = layout.used_count > 0
    for column in figures:
        busy |= column != 0
    told = [
        layout.host_row[n] for n in {*gaps, *layout.snapshot.host_loads} if n in layout.host_row
    ]
    busy[[*told, *(row for row, assessment in enumerate(found) if assessment is None)]] = True
    rows = rows_where(busy)
    columns = [column[rows].tolist() for column in (*figures, lacks)]
    for row, cpu, memory, *strain in zip(rows.tolist(), *columns, strict=True):
        gap = gaps.get(layout.hosts[row])
        found[row] = _assess(layout, row, gap, cpu, memory, Strain(*strain), now)
    return tuple(assessment for assessment in found if assessment is not None)


@lru_cache(maxsize=2)
def _asleep(
    hosts: Same[Mapping[str, Host]], names: tuple[str, ...]
) -> tuple[Assessment | None, ...]:
    """What to say of hosts that are off, where nothing else is told of them: on a site that is
    packed they are the most by far."""
    powers = [(name, hosts.value[name].power) for name in names]
    return tuple(
        Assessment(name, Verdict.ASLEEP, f"it is {power}") if power in _OFF else None
        for name, power in powers
    )


def _strains(layout: Layout) -> tuple[Floats, Floats]:
    """By host: the share of the time that its VMs' vCPUs had to wait, where large VMs weigh more;
    and the bytes of memory that they lack."""
    loads, count = loads_of(layout.snapshot), len(layout.hosts)
    rows, placed = loads.rows(layout.vms), layout.origin[layout.home]
    sizes = np.where(rows >= 0, layout.vm_sizes, 0.0)
    waits = np.bincount(placed, sizes * _told(taken(loads.steal, rows)), count)
    total = np.bincount(placed, sizes, count)
    lacked = np.bincount(placed, _told(taken(loads.shortage, rows)), count)
    return waits / np.where(total > 0, total, 1.0), lacked.astype(np.float64)


def _told(column: Floats) -> Floats:
    return np.where(np.isfinite(column), np.maximum(column, 0.0), 0.0)


def _assess(
    layout: Layout,
    row: int,
    gap: Gap | None,
    expected: float,
    memory: float,
    strain: Strain,
    now: float,
) -> Assessment:
    name = layout.hosts[row]
    host, load = layout.snapshot.cluster.hosts[name], layout.snapshot.host_loads.get(name)
    verdict, reason = _without_load(layout.snapshot, host, gap) or (None, "")
    capacity = float(layout.cpu_capacity[row])
    if verdict is None and (load is None or not _believable(load) or capacity <= 0):
        verdict, reason = Verdict.UNKNOWN, "no believable load or capacity"
    share = 1.0 / capacity if load and verdict is not Verdict.UNKNOWN and capacity > 0 else 0.0
    now_, mean = (load.cpu * share, load.cpu_mean * share) if load else (0.0, 0.0)
    if verdict is None and load is not None:
        # What the host could give back at once, it would; other hosts could give no more.
        free = max(0, host.memory - load.memory)
        lacked = strain.shortage + max(0.0, load.shortage) - free
        waiting = max(strain.waiting, load.steal)
        strain = Strain(waiting, max(0.0, lacked), strain.cramped)
        use = (now_, mean, expected)
        room = float(layout.memory_capacity[row])
        verdict, reason = _verdict(layout, row, load, use, memory, strain, room, now)
    if verdict is None:
        verdict = Verdict.UNKNOWN
    count = int(layout.used_count[row])
    return Assessment(
        name, verdict, reason, now_, mean, expected, memory, count, strain.waiting, strain.shortage
    )


def _without_load(snapshot: Snapshot, host: Host, gap: Gap | None) -> tuple[Verdict, str] | None:
    """Verdicts that do not depend on how busy the host is."""
    if gap is not None:
        return Verdict.UNKNOWN, f"{gap.kind}: {gap.detail}"
    if host.power in _OFF:
        return Verdict.ASLEEP, f"it is {host.power}"
    if host.power is not PowerState.ON:
        return Verdict.UNKNOWN, "its power state is not known"
    if host.name in snapshot.draining:
        return Verdict.DRAINING, "an operator drains it"
    return None


def _believable(load: Load) -> bool:
    return 0 <= load.cpu < ABSURD_CORES and isfinite(load.cpu_mean)


def _passing(layout: Layout, row: int, cpu: float) -> float | None:
    """What a host's VMs usually use, if it is above `overload` only as their loads waver.

    None if the policy sits none out, if one waver more may bring it to where VMs wait, if it is
    there to stay, if no waver explains it, or if what is usual is not well below: then it would be
    there again and again.
    """
    if not layout.policy.detection.wavers:
        return None
    band, capacity = layout.policy.thresholds.cpu, float(layout.cpu_capacity[row])
    variance = layout.used_variance[row] - layout.leaving_variance[row]
    spread = sqrt(max(0.0, float(variance))) / capacity
    level = float(layout.used_cpu[row] - layout.leaving_cpu[row]) / capacity
    if cpu + spread >= 1.0 or level - spread / 2 > band.overload or cpu > level + WAVER * spread:
        return None
    usual = level + sum(_beside(layout, block) for block in layout.blocks_on(row)) / capacity
    return usual if usual < (band.release + band.overload) / 2 else None


def _usually(layout: Layout, row: int) -> str:
    """What a host's VMs usually use, and by how much that wavers."""
    capacity = float(layout.cpu_capacity[row])
    variance = max(0.0, float(layout.used_variance[row] - layout.leaving_variance[row]))
    level = float(layout.used_cpu[row] - layout.leaving_cpu[row])
    return f"its VMs use {level / capacity:.0%}, give or take {sqrt(variance) / capacity:.0%}"


def _beside(layout: Layout, block: int) -> float:
    """By how much a block usually uses more than is expected of it, in reference cores; where that
    is not known, what it uses now counts as usual."""
    vms, forecasts = layout.blocks[block], layout.snapshot.forecasts
    usual = [seen.usual if (seen := forecasts.get(vm)) else None for vm in vms]
    known = [use for use in usual if use is not None]
    use = sum(known) if len(known) == len(vms) else float(layout.now[block])
    return use - float(layout.cpu[block])


def _verdict(
    layout: Layout,
    row: int,
    load: Load,
    use: tuple[float, float, float],
    memory: float,
    strain: Strain,
    room: float,
    now: float,
) -> tuple[Verdict, str]:
    """The verdict on a host that is on; `use` of CPU is now, in the mean, and expected."""
    (cpu, mean, _), busiest = use, max(use)
    bands, detection = layout.policy.thresholds, layout.policy.detection
    if layout.policy.capacity.enforce_memory and memory > bands.memory.overload:
        return Verdict.OVERLOADED, f"memory {memory:.0%} > {bands.memory.overload:.0%}"
    if now - load.since < detection.warm_up:
        return Verdict.NORMAL, f"seen only for {format_duration(max(0.0, now - load.since))}"
    if strain.waiting > detection.steal:
        return Verdict.OVERLOADED, f"vCPUs wait {strain.waiting:.0%} > {detection.steal:.0%}"
    if layout.policy.capacity.enforce_memory and strain.shortage > detection.shortage * room:
        limit = format_size(detection.shortage * room)
        return Verdict.OVERLOADED, f"it lacks {format_size(strain.shortage)} of memory > {limit}"
    if cpu > bands.cpu.overload and mean > bands.cpu.overload:
        seen = f"CPU {cpu:.0%}, mean {mean:.0%} > {bands.cpu.overload:.0%}"
        if strain.cramped > 0:
            return Verdict.OVERLOADED, f"{seen}, too little room: {_usually(layout, row)}"
        if strain.cramped <= 0 and wavers.explain(layout, row, load.cpu, WAVER):
            return Verdict.NORMAL, f"{seen}, which will pass: {_usually(layout, row)}"
        if (usual := _passing(layout, row, cpu)) is None:
            return Verdict.OVERLOADED, seen
        return Verdict.NORMAL, f"{seen}, which will pass: its VMs usually use {usual:.0%}"
    memory_idle = memory < bands.memory.idle or not layout.policy.capacity.enforce_memory
    if busiest < bands.cpu.idle and memory_idle:
        return Verdict.IDLE, f"CPU {max(cpu, mean):.0%} < {bands.cpu.idle:.0%}"
    return Verdict.NORMAL, f"CPU {cpu:.0%}, memory {memory:.0%}"
