"""The independent checker: replays a plan and says whether it keeps every rule all the way.

It shares no code with the planner, and only uses plain dictionaries and sets. It does not trust the
order in which a plan is written: for each move it charges the target with everything that *can* be
there together with the VM under any order that the `after` numbers allow, so a plan that
passes holds however long its migrations take.

What a rule already breaks at the start is not held against the plan, as long as no move adds to it.
"""

from math import inf

from balancerd.core.check.capacity import check_landing
from balancerd.core.check.cold import check_cold
from balancerd.core.check.replay import Replay
from balancerd.core.check.reserve import check_reserve
from balancerd.core.check.rules import check_groups_at_end, check_rules, soft_breaks
from balancerd.core.check.sequence import check_power, check_sequence
from balancerd.core.model import Method, Snapshot
from balancerd.core.plan import Certificate, Plan
from balancerd.core.policies.policy import Policy

__all__ = ["check"]


def check(snapshot: Snapshot, policy: Policy, plan: Plan) -> Certificate:
    """What the replay of a plan finds; a certificate without violations is a sound plan."""
    replay = Replay(snapshot, policy, plan)
    check_sequence(replay)
    check_power(replay)
    for move in plan.moves:
        if replay.violations:
            break
        if move.method is Method.COLD:
            check_cold(replay, move)
        else:
            check_landing(replay, move)
            check_rules(replay, move)
    if not replay.violations:
        check_groups_at_end(replay)
        check_reserve(replay)
    soft = () if replay.violations else soft_breaks(replay)
    slack = {name: value for name, value in sorted(replay.slack.items()) if value < inf}
    return Certificate(2 * len(plan.moves), tuple(replay.violations), slack, soft)
