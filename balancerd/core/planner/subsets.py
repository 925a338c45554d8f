"""Sets of a few blocks: two small ones that leave a host may be better than any one alone."""

from functools import cache
from itertools import chain, combinations
from math import comb

import numpy as np

from balancerd.core.placing.layout import Bools

TOGETHER = 3  # blocks that leave a host at once
CHOICE = 14  # blocks of a host that are weighed in sets: those that give most for their price


def sets_of(count: int) -> Bools:
    """Sets of up to `TOGETHER` of so many blocks: a row each, true for those in it; first none."""
    if count > CHOICE:
        return _table(count)
    return _table(CHOICE)[: sum(comb(count, size) for size in range(TOGETHER + 1)), :count]


@cache
def _table(count: int) -> Bools:
    """All sets, by the last block in them: those of fewer blocks are the first rows."""
    sizes = range(TOGETHER + 1)
    chosen = [members for size in sizes for members in combinations(range(count), size)]
    chosen.sort(key=lambda members: (members[-1:], len(members), members))
    sets = np.zeros((len(chosen), count), dtype=np.bool_)
    rows = np.repeat(np.arange(len(chosen)), [len(members) for members in chosen])
    sets[rows, np.fromiter(chain.from_iterable(chosen), dtype=np.int64)] = True
    return sets
