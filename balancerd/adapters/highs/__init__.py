"""HiGHS behind the exact engine: a mixed-integer solver in a process of its own."""

from balancerd.adapters.highs.solver import solve as solve
