"""How transfers share links: max-min fairness with a cap for each transfer.

Max-min: nobody gets more while somebody who gets less could get more. Found by filling: a link that
is the narrowest for all its transfers divides what it has left among them; these are settled, and
the rest share what remains (Bertsekas & Gallager, Data Networks, 6.5.2).
"""

import numpy as np
from numpy.typing import NDArray

from balancerd.core.columns import rows_where

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


def max_min_rates(paths: Indices, caps: Floats, capacities: Floats) -> Floats:
    """Rate of each transfer, bytes per second.

    `paths` (transfers x hops) holds indices of directed links; unused hops hold the index of a link
    of infinite capacity, which the last element of `capacities` has to be. A transfer never gets
    more than its cap.
    """
    rates = np.zeros(len(caps))
    left = capacities.copy()
    open_ = np.ones(len(caps), dtype=bool)
    while open_.any():
        waiting = paths[open_]
        counts = np.bincount(waiting.ravel(), minlength=len(left))
        shares = left / np.maximum(counts, 1)
        offered = np.minimum(shares[waiting].min(axis=1), caps[open_])
        settled = _settled(waiting, offered, caps[open_], shares)
        chosen = rows_where(open_)[settled]
        rates[chosen] = offered[settled]
        for hop in paths[chosen].T:
            np.subtract.at(left, hop, rates[chosen])
        np.maximum(left, 0.0, out=left)
        open_[chosen] = False
    return rates


def _settled(paths: Indices, offered: Floats, caps: Floats, shares: Floats) -> NDArray[np.bool_]:
    """Transfers whose rate cannot change any more: at their cap, or on a link that all of its
    transfers find narrowest. There is always one."""
    lowest = np.full(len(shares), np.inf)
    for hop in paths.T:
        np.minimum.at(lowest, hop, offered)
    narrow = lowest >= shares * (1 - 1e-12)
    return (offered >= caps) | narrow[paths].any(axis=1)
