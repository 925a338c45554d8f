"""The exact engine's solver in a simulated life: HiGHS itself, in this process, which now and then
comes to nothing.
"""

import random
from collections.abc import Callable

from balancerd.adapters.highs.process import solution
from balancerd.adapters.highs.solver import ARRAYS, NOTHING
from balancerd.core.exact import Program, Solution

FAILURE = 0.1  # chance that nothing comes of it
SECONDS = 60.0  # so many that it never ends for want of time: a life is lived the same each time


class Solver:
    """See the module. `note` is told of each end."""

    def __init__(self, rng: random.Random, note: Callable[[str], None]) -> None:
        self._rng, self._note = rng, note

    def __call__(self, program: Program, _seconds: float, _memory: int) -> Solution:
        if self._rng.random() < FAILURE:
            self._note("solver failed")
            return Solution(None, NOTHING, "was killed after 15 s")
        found = solution({name: getattr(program, name) for name in ARRAYS}, SECONDS)
        self._note("solver asked")
        return Solution(found["x"] if len(found["x"]) else None, found["bound"], found["told"])
