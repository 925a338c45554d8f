"""Sets of a few blocks: two small ones that leave a host may be better than any one alone."""

from functools import cache
from itertools import combinations

import numpy as np

from balancerd.core.placing.layout import Bools

TOGETHER = 3  # blocks that leave a host at once
CHOICE = 14  # blocks of a host that are weighed in sets: those that give most for their price


@cache
def sets_of(count: int) -> Bools:
    """Sets of up to `TOGETHER` of so many blocks: a row each, true for those in it."""
    sizes = range(1, min(TOGETHER, count) + 1)
    chosen = [np.array(list(combinations(range(count), size))) for size in sizes]
    every = np.eye(count, dtype=np.bool_)
    nothing = np.zeros((0, count), dtype=np.bool_)
    return np.concatenate([nothing, *(every[members].any(axis=1) for members in chosen)])
