"""What a migration is expected to cost."""

from dataclasses import dataclass

from balancerd.core.model import Snapshot
from balancerd.core.policy import Limits

# Pre-copy sends what was written meanwhile again; a tenth more is what guests of moderate
# write rate need. The switch-over itself, with nothing left to send, takes some 50 ms.
RESENT, SWITCH_OVER = 0.1, 0.05


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one migration: seconds, bytes sent, seconds of downtime."""

    seconds: float
    bytes: int
    downtime: float


def migration_cost(vm: str, snapshot: Snapshot, limits: Limits) -> Cost:
    """Predicted from the memory in use (all of it where that is not known) and the cap."""
    load = snapshot.loads.get(vm)
    size = snapshot.cluster.vms[vm].memory
    used = min(load.memory, size) if load and load.memory > 0 else size
    sent = round(max(0, used) * (1 + RESENT))
    downtime = min(limits.downtime, SWITCH_OVER + RESENT * used / limits.bandwidth)
    return Cost(sent / limits.bandwidth + downtime, sent, downtime)
