"""Which hosts sleep and which are woken.

Enough hosts stay on to carry the expected demand below `release` even if `reserve` of the largest
went away; a host goes to sleep only if what is left carries it below `landing`. Between the two
nothing changes.

With a reserve, the VMs of any one host also have to fit on the others, one by one and within the
same shares (`constraints.homeless`): hosts are woken for that where it helps, and none goes to
sleep that another host's VMs would need.
"""

import numpy as np

from balancerd.core.constraints import homeless
from balancerd.core.layout import Bools, Floats
from balancerd.core.model import PowerState
from balancerd.core.plan import Refusal
from balancerd.core.planner.draft import Draft
from balancerd.core.units import counted, format_duration


def wake(draft: Draft) -> None:
    """Wake hosts as long as the demand and the reserve need more room than there is."""
    bands = draft.policy.thresholds
    beyond_help: set[int] | None = None
    while True:
        short = _shortage(draft, draft.serving(), bands.cpu.release, bands.memory.release)
        if not short and draft.policy.power.reserve and draft.wakeable().any():
            if beyond_help is None:
                beyond_help = _homeless(draft, draft.serving() | draft.wakeable())
            short = _stranded(draft, _homeless(draft, draft.serving()) - beyond_help)
        reserve = counted(draft.policy.power.reserve, "host in reserve")
        if not short or not draft.wake_one(f"{short}, {reserve}"):
            return


def _homeless(draft: Draft, on: Bools) -> set[int]:
    bands = draft.policy.thresholds
    return set(homeless(draft.layout, on, bands.cpu.release, bands.memory.release))


def _stranded(draft: Draft, hosts: set[int]) -> str:
    if not hosts:
        return ""
    name = draft.layout.hosts[min(hosts)]
    return f"should {name} fail, the others that are on have no room for its VMs"


def sleep(draft: Draft) -> None:
    """Send hosts to sleep that were seen empty for long enough, the least efficient first."""
    if not draft.policy.power.sleep_idle or draft.wakes:
        return
    layout, bands = draft.layout, draft.policy.thresholds
    on = draft.awake()
    spare = [row for row in range(len(layout.hosts)) if _may_sleep(draft, row)]
    for row in sorted(spare, key=lambda r: (draft.price(r), r), reverse=True):
        left = on.copy()
        left[row] = False
        if left.sum() < draft.policy.power.keep_on:
            return
        if _shortage(draft, left & draft.serving(), bands.cpu.landing, bands.memory.landing):
            continue
        if draft.policy.power.reserve and not _spared(draft, on, left, row):
            continue
        on = left
        draft.sleeps[row] = _why(draft, row)


def _spared(draft: Draft, on: Bools, left: Bools, row: int) -> bool:
    """Whether no other host's VMs would need this one should that host fail.

    Neither to stay below `landing`, nor, where that is out of reach, to find room at all.
    """
    bands, serving = draft.policy.thresholds, draft.serving()
    stranded = set[int]()
    for cpu, memory in ((bands.cpu.landing, bands.memory.landing), (1.0, 1.0)):
        before = homeless(draft.layout, on & serving, cpu, memory)
        stranded |= set(homeless(draft.layout, left & serving, cpu, memory)).difference(before)
    if stranded:
        name = draft.layout.hosts[row]
        draft.note(Refusal("", name, "reserve", _stranded(draft, stranded), "wake another host"))
    return not stranded


def _may_sleep(draft: Draft, row: int) -> bool:
    layout, rules, history = draft.layout, draft.policy.power, draft.history
    name = layout.hosts[row]
    host = layout.snapshot.cluster.hosts[name]
    if host.power is not PowerState.ON or not host.can_sleep or not layout.receives[row]:
        return False
    if layout.used_count[row] or any(row in (step.source, step.target) for step in draft.steps):
        return False
    idle = history.idle_since.get(name)
    rested = rules.idle_for <= 0 if idle is None else draft.now - idle >= rules.idle_for
    return rested and draft.now - history.woken.get(name, -np.inf) >= rules.min_on


def _shortage(draft: Draft, on: Bools, cpu: float, memory: float) -> str:
    """What the hosts that are on cannot carry below these shares; "" if they can."""
    layout, reserve = draft.layout, draft.policy.power.reserve
    awake = draft.awake()
    spread = layout.factor * np.sqrt(layout.used_variance[awake].sum())
    demand = layout.used_cpu[awake].sum() + spread
    room = cpu * _without_largest(layout.cpu_capacity[on], reserve)
    if demand > room:
        return f"{demand:.1f} cores expected, room for {room:.1f}"
    needed = layout.used_memory[awake].sum()
    space = memory * _without_largest(layout.memory_capacity[on], reserve)
    if draft.policy.capacity.enforce_memory and needed > space:
        return f"memory {needed / max(space, 1):.0%} of what there is room for"
    return ""


def _without_largest(capacity: Floats, count: int) -> float:
    return float(np.sort(capacity)[: max(0, len(capacity) - count)].sum())


def _why(draft: Draft, row: int) -> str:
    name = draft.layout.hosts[row]
    cluster = draft.layout.snapshot.cluster
    since = draft.history.idle_since.get(name, draft.now)
    asleep = sum(host == name for host in cluster.placement.values())
    also = f", {asleep} shut-off VMs stay defined on it" if asleep else ""
    return f"empty for {format_duration(draft.now - since)}{also}"
