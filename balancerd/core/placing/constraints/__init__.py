"""The rules of a site, each written twice.

`definition` says what breaks a rule, slow and obvious; `fast` says which hosts would refuse a
block, for every host at once. A property test ties the two: what no check refuses breaks nothing.
"""

from balancerd.core.placing.constraints.contradictions import contradictions
from balancerd.core.placing.constraints.definition import Violation, violations
from balancerd.core.placing.constraints.fast import (
    accepts,
    all_refusals,
    forbidding,
    refuses,
    refusing,
    unopposed,
)
from balancerd.core.placing.constraints.gate import Gate, refuses_move
from balancerd.core.placing.constraints.reserve import Failover
from balancerd.core.placing.constraints.soft import soft_cost, soft_cost_of_group
from balancerd.core.placing.constraints.soft_definition import SoftBreak, soft_breaks

__all__ = [
    "Failover",
    "Gate",
    "SoftBreak",
    "Violation",
    "accepts",
    "all_refusals",
    "contradictions",
    "forbidding",
    "refuses",
    "refuses_move",
    "refusing",
    "soft_breaks",
    "soft_cost",
    "soft_cost_of_group",
    "unopposed",
    "violations",
]
