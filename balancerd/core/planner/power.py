"""Which hosts sleep and which are woken.

Enough hosts stay on to carry the expected demand below `release` even if `reserve` of the largest
went away; a host goes to sleep only if what is left carries it below `landing`. Between the two
nothing changes.

With a reserve, the VMs of any one host also have to fit on the others, one by one and within the
same shares (`constraints.Failover`): hosts are woken for that where it helps, and none goes to
sleep that another host's VMs would need.
"""

import numpy as np

from balancerd.core.columns import rows_where
from balancerd.core.model import PowerState
from balancerd.core.placing.constraints import Failover
from balancerd.core.placing.layout import Bools, Floats
from balancerd.core.plan import Refusal
from balancerd.core.planner.draft import Draft
from balancerd.core.units import counted, format_duration


def wake(draft: Draft) -> None:
    """Wake hosts as long as the demand and the reserve need more room than there is."""
    bands, reserve = draft.policy.thresholds, draft.policy.power.reserve
    may_help = reserve > 0 and bool(draft.wakeable().any())
    failover, beyond_help = Failover.of(draft.layout) if may_help else None, set[int]()

    def homeless(on: Bools) -> set[int]:
        asked = bands.cpu.release, bands.memory.release
        return set(failover.homeless(on, *asked)) if failover else set()

    if may_help:
        beyond_help = homeless(draft.serving() | draft.wakeable())
    while True:
        short = _shortage(draft, draft.serving(), bands.cpu.release, bands.memory.release)
        if not short and may_help:
            short = _stranded(draft, homeless(draft.serving()) - beyond_help)
        if not short or not draft.wake_one(f"{short}, {counted(reserve, 'host in reserve')}"):
            return


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
    on, serving = draft.awake(), draft.serving()
    failover = Failover.of(layout) if draft.policy.power.reserve else None
    empty = rows_where(layout.receives & (layout.used_count == 0)).tolist()
    touched = {row for step in draft.steps for row in (step.source, step.target)}
    spare = [row for row in empty if row not in touched and _may_sleep(draft, row)]
    for row in sorted(spare, key=lambda r: (draft.price(r), r), reverse=True):
        left = on.copy()
        left[row] = False
        if left.sum() < draft.policy.power.keep_on:
            return
        if _shortage(draft, left & serving, bands.cpu.landing, bands.memory.landing):
            continue
        if failover:
            stranded = _missing(draft, failover, on & serving, left & serving)
            if stranded:
                why = _stranded(draft, stranded)
                draft.note(Refusal("", layout.hosts[row], "reserve", why, "wake another host"))
                continue
        on = left
        draft.sleeps[row] = _why(draft, row)


def _missing(draft: Draft, failover: Failover, on: Bools, left: Bools) -> set[int]:
    """Hosts whose VMs would miss those that are not left on, should they fail.

    Be it to stay below `landing` or, where that is out of reach, to find room at all.
    """
    bands, missing = draft.policy.thresholds, set[int]()
    for cpu, memory in ((bands.cpu.landing, bands.memory.landing), (1.0, 1.0)):
        stranded = set(failover.homeless(left, cpu, memory))
        if not stranded:
            break  # with more room there are none, either
        missing |= stranded.difference(failover.homeless(on, cpu, memory))
    return missing


def _may_sleep(draft: Draft, row: int) -> bool:
    """Whether a host that is empty was so for long enough."""
    layout, rules, history = draft.layout, draft.policy.power, draft.history
    name = layout.hosts[row]
    host = layout.snapshot.cluster.hosts[name]
    if host.power is not PowerState.ON or not host.may_sleep:
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
    also = f", {counted(asleep, 'VM')} shut off on it" if asleep else ""
    return f"empty for {format_duration(draft.now - since)}{also}"
