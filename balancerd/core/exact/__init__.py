"""The exact engine: the objective's stage of planning as a mixed-integer program.

Everything else of planning stays as it is: what is urgent comes first, the built-in stage gives the
solver its start, the same order and checker follow. A solver that fails, is killed, or finds
nothing better leaves the built-in plan, and the plan says so.
"""

from balancerd.core.exact.engine import planner_with
from balancerd.core.exact.program import Program, Solution, Solver

__all__ = ["Program", "Solution", "Solver", "planner_with"]
