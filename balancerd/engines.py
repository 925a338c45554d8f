"""What decides in production: the engine that the policy names, with HiGHS behind the exact one."""

from balancerd.adapters.highs import solve
from balancerd.core.exact import planner_with

planner = planner_with(solve)
