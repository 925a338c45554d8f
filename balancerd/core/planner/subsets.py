"""Sets of a few blocks: two small ones that leave a host may be better than any one alone."""

from math import comb

import numpy as np

from balancerd.core.placing.layout import Floats

TOGETHER = 3  # blocks that leave a host at once
CHOICE = 14  # blocks of a host that are weighed in sets: those that give most for their price


def sets_of(count: int) -> Floats:
    """Sets of up to `TOGETHER` of so many blocks, `CHOICE` at most: a row each, 1 for those in it;
    the first is empty."""
    return _TABLE[: sum(comb(count, size) for size in range(TOGETHER + 1)), :count]


def _table() -> Floats:
    """All sets, as the bits of numbers in order: those of fewer blocks are the first rows."""
    bits, found = [1 << block for block in range(CHOICE)], {0}
    for _ in range(TOGETHER):
        found |= {number | bit for number in found for bit in bits}
    numbers = np.array(sorted(found))
    return (numbers[:, np.newaxis] >> np.arange(CHOICE) & 1).astype(np.float64)


_TABLE = _table()
