"""Room for wavers: for what VMs stray from what is usual for them, longer than a moment, and back.

No move ends a waver. It goes with its VM, and the next host wavers in the place of this one; what
helps is room. How much a host needs follows from the spread of its VMs and from the share of the
time for which the policy lets it be overloaded (all taken as normal, and as independent beyond what
the spread holds). A host that has that much is left in peace even where VMs wait for a while; one
that lacks some gives VMs up before they wait. Peaks, which are over by the next reading, and levels
that changed are neither: a host whose load strays by these for the most part is no concern of this.
"""

from math import sqrt
from statistics import NormalDist

import numpy as np

from balancerd.core.columns import Bools, Floats
from balancerd.core.placing.layout import Layout

# Room is made for a tenth of that share: what is usual is known but roughly, and moves once.
AHEAD = 0.1
NORMAL = NormalDist()


def lacking(layout: Layout, ahead: float = 1.0) -> Floats:
    """Reference cores that hosts lack for their VMs' wavers (below 0: so many are left); NaN for
    hosts that do not waver, or whose only VM does. `ahead`: of the share that the policy allows."""
    share, hosts = layout.policy.detection.waver_share, len(layout.hosts)
    if not share:
        return np.full(hosts, np.nan)
    variance = np.maximum(layout.used_variance - layout.leaving_variance, 0.0)
    wavers = np.bincount(layout.place, layout.wavering, hosts) > variance / 2
    level = layout.used_cpu - layout.leaving_cpu
    lacks = level + _factor(share * ahead) * np.sqrt(variance) - layout.cpu_capacity
    return np.where(wavers & (layout.used_count > 1), lacks, np.nan)


def explain(layout: Layout, row: int, cpu: float, most: float) -> bool:
    """Whether wavers of at most so many standard deviations make a host use so much CPU, and not
    one VM that uses more than any waver has it use; nor what is usual, if that is an overload."""
    here = layout.blocks_on(row)
    rise = layout.now[here] - layout.cpu[here]
    if (rise > most * np.sqrt(layout.variance[here])).any():
        return False
    variance = max(0.0, float(layout.used_variance[row] - layout.leaving_variance[row]))
    level = float(layout.used_cpu[row] - layout.leaving_cpu[row])
    limit = layout.policy.thresholds.cpu.overload * float(layout.cpu_capacity[row])
    return level <= limit and cpu <= level + most * sqrt(variance)


def freed(layout: Layout, host: int) -> Floats:
    """The room that each block would leave on a host, in reference cores."""
    factor, variance = _factor(layout.policy.detection.waver_share * AHEAD), layout.variance
    left = np.sqrt(np.maximum(layout.used_variance[host] - variance, 0.0))
    return np.asarray(layout.cpu + factor * (np.sqrt(layout.used_variance[host]) - left))


def roomy(layout: Layout, block: int) -> Bools:
    """Hosts that would still have that room if they took a block."""
    factor = _factor(layout.policy.detection.waver_share * AHEAD)
    spread = np.sqrt(layout.used_variance + layout.variance[block])
    after = layout.used_cpu + layout.cpu[block] + factor * spread
    return np.asarray(after <= layout.cpu_capacity)


def _factor(share: float) -> float:
    """Standard deviations above the mean that are passed for such a share of the time."""
    return NORMAL.inv_cdf(1.0 - share)
