"""A policy's constraints, held against where VMs really are and not against what is recorded."""

from balancerd.adapters.sim.world import World
from balancerd.core.model import Snapshot
from balancerd.core.placing.constraints import violations
from balancerd.core.policies.policy import Policy

_CONSTRAINTS = frozenset({"together", "apart", "pin", "avoid"})


class RuleWatch:
    """Counts constraints that were kept at one check and are broken at the next.

    Those that are broken at the first check are the site's, and not counted.
    """

    def __init__(self, policy: Policy) -> None:
        self.broken = 0
        self._policy = policy
        self._before: set[tuple[str, str]] | None = None

    def check(self, world: World) -> None:
        """Look at the present moment."""
        if not self._policy.constraint:
            return
        snapshot = Snapshot(world.now(), world.cluster(), {}, {}, {})
        found = violations(snapshot, self._policy.at(world.now()))
        now = {violation.key for violation in found if violation.constraint in _CONSTRAINTS}
        self.broken += 0 if self._before is None else len(now - self._before)
        self._before = now
