"""Each host's verdict under the dual threshold, with the numbers behind it.

A host is overloaded only if its CPU is above `overload` now *and* in the window's mean, or if its
VMs' vCPUs have to wait, or if its VMs are charged more memory than `overload`. What was not seen
for `warm_up` seconds gives no verdict to act on. Of contention that shows already, waiting vCPUs
are all that backends read: neither pressure (PSI) nor swapping nor ballooning.
"""

from math import isfinite

import numpy as np

from balancerd.core.columns import Floats, Loads
from balancerd.core.model import ABSURD_CORES, Gap, Host, Load, PowerState, Snapshot
from balancerd.core.past.history import History
from balancerd.core.placing.layout import Layout
from balancerd.core.placing.survey import lay_out
from balancerd.core.plan import Assessment, Verdict
from balancerd.core.policies.policy import Policy
from balancerd.core.units import format_duration


def assess(snapshot: Snapshot, policy: Policy, now: float) -> tuple[Assessment, ...]:
    """The verdict on every host, in order of their names."""
    return assess_layout(lay_out(snapshot, policy, History(), now), now)


def assess_layout(layout: Layout, now: float) -> tuple[Assessment, ...]:
    """The same, where the layout was already drawn up."""
    cpu, memory = layout.settled_cpu().tolist(), layout.settled_memory().tolist()
    waiting = _waiting(layout).tolist()
    gaps = {gap.name: gap for gap in reversed(layout.snapshot.gaps) if gap.subject == "host"}
    return tuple(
        _assess(layout, row, gaps.get(name), cpu[row], memory[row], waiting[row], now)
        for row, name in enumerate(layout.hosts)
    )


def _waiting(layout: Layout) -> Floats:
    """The share of the time that the vCPUs of each host's VMs had to wait; large VMs weigh more."""
    snapshot, rows = layout.snapshot, layout.host_row
    loads = Loads.of(snapshot.loads)
    cluster, nowhere = snapshot.cluster, len(layout.hosts)
    placed = [rows.get(cluster.placement.get(name, ""), nowhere) for name in loads.names]
    sizes = np.array([vm.size if (vm := cluster.vms.get(n)) else 0.0 for n in loads.names])
    steal = np.where(np.isfinite(loads.steal), np.maximum(loads.steal, 0.0), 0.0)
    waits = np.bincount(np.array(placed, dtype=np.int64), sizes * steal, nowhere + 1)
    total = np.bincount(np.array(placed, dtype=np.int64), sizes, nowhere + 1)
    return np.asarray((waits / np.where(total > 0, total, 1.0))[:nowhere])


def _assess(
    layout: Layout,
    row: int,
    gap: Gap | None,
    expected: float,
    memory: float,
    waiting: float,
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
        waiting = max(waiting, load.steal)
        verdict, reason = _verdict(layout, load, (now_, mean, expected), memory, waiting, now)
    if verdict is None:
        verdict = Verdict.UNKNOWN
    count = int(layout.used_count[row])
    return Assessment(name, verdict, reason, now_, mean, expected, memory, count, waiting)


def _without_load(snapshot: Snapshot, host: Host, gap: Gap | None) -> tuple[Verdict, str] | None:
    """Verdicts that do not depend on how busy the host is."""
    if gap is not None:
        return Verdict.UNKNOWN, f"{gap.kind}: {gap.detail}"
    if host.power in (PowerState.OFF, PowerState.WAKING, PowerState.SLEEPING):
        return Verdict.ASLEEP, f"it is {host.power}"
    if host.power is not PowerState.ON:
        return Verdict.UNKNOWN, "its power state is not known"
    if host.name in snapshot.draining:
        return Verdict.DRAINING, "an operator drains it"
    return None


def _believable(load: Load) -> bool:
    return 0 <= load.cpu < ABSURD_CORES and isfinite(load.cpu_mean)


def _verdict(
    layout: Layout,
    load: Load,
    use: tuple[float, float, float],
    memory: float,
    waiting: float,
    now: float,
) -> tuple[Verdict, str]:
    """The verdict on a host that is on; `use` of CPU is now, in the mean, and expected."""
    (cpu, mean, _), busiest = use, max(use)
    bands, detection = layout.policy.thresholds, layout.policy.detection
    if layout.policy.capacity.enforce_memory and memory > bands.memory.overload:
        return Verdict.OVERLOADED, f"memory {memory:.0%} > {bands.memory.overload:.0%}"
    if now - load.since < detection.warm_up:
        return Verdict.NORMAL, f"seen only for {format_duration(max(0.0, now - load.since))}"
    if waiting > detection.steal:
        return Verdict.OVERLOADED, f"vCPUs wait {waiting:.0%} > {detection.steal:.0%}"
    if cpu > bands.cpu.overload and mean > bands.cpu.overload:
        return Verdict.OVERLOADED, f"CPU {cpu:.0%}, mean {mean:.0%} > {bands.cpu.overload:.0%}"
    memory_idle = memory < bands.memory.idle or not layout.policy.capacity.enforce_memory
    if busiest < bands.cpu.idle and memory_idle:
        return Verdict.IDLE, f"CPU {max(cpu, mean):.0%} < {bands.cpu.idle:.0%}"
    return Verdict.NORMAL, f"CPU {cpu:.0%}, memory {memory:.0%}"
