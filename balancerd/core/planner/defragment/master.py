"""A small linear programme that grows by columns, solved by the simplex method.

Maximise the value of a mixture of columns: shares that are not negative and add up to 1, such that
the mixture of their uses stays within the limits. There are a dozen rows, so every pivot solves its
systems anew: no inverse is carried along that could drift.
"""

import numpy as np

from balancerd.core.columns import rows_where
from balancerd.core.placing.layout import Floats, Ints

PIVOTS = 2000  # in one call; far more than are ever needed
TINY = 1e-7
# Limits are widened a little, each differently: ties between them would let the search run in
# circles.
WIDENED = 1e-5


class Master:
    """The programme. Column 0, "nothing", is there from the start: no value, no use."""

    def __init__(self, limits: Floats) -> None:
        spread = 1.0 + 0.37 * np.arange(len(limits))
        self._right = np.append(limits + WIDENED * spread, 1.0)
        self._columns = np.zeros((len(limits) + 1, 1))
        self._columns[-1, 0] = 1.0
        self._values = np.zeros(1)
        # Rows in the basis: a column's number, or -1 - row for the slack of a limit.
        self._basis = np.append(-1 - np.arange(len(limits)), 0)

    def add(self, value: float, use: Floats) -> bool:
        """Another column; False if it is there already."""
        column = np.append(use, 1.0)
        known = (self._columns == column[:, np.newaxis]).all(axis=0) & (self._values >= value)
        if known.any():
            return False
        self._columns = np.column_stack([self._columns, column])
        self._values = np.append(self._values, value)
        return True

    def solve(self) -> tuple[Floats, float]:
        """The duals of the limits at the optimum, and its value."""
        for _ in range(PIVOTS):
            matrix = self._matrix_of(self._basis)
            duals = np.asarray(np.linalg.solve(matrix.T, self._basic_values()), dtype=np.float64)
            entering = self._entering(duals)
            if entering is None:
                break
            sides = np.column_stack([self._right, self._matrix_of(np.array([entering]))])
            amount, direction = np.linalg.solve(matrix, sides).T
            self._basis[_leaving(np.maximum(0.0, amount), direction)] = entering
        return np.maximum(0.0, duals[:-1]), float(duals @ self._right)

    def shares(self) -> dict[int, float]:
        """The columns in the mixture, each with its share."""
        amounts = np.linalg.solve(self._matrix_of(self._basis), self._right)
        return {
            int(number): float(amount)
            for number, amount in zip(self._basis, amounts, strict=True)
            if number >= 0 and amount > TINY
        }

    def _entering(self, duals: Floats) -> int | None:
        """What betters the mixture most; None at the optimum."""
        gains = self._values - duals @ self._columns
        best, slack = int(gains.argmax()), int(duals[:-1].argmin())
        if max(gains[best], -duals[slack]) < TINY:
            return None
        return best if gains[best] >= -duals[slack] else -1 - slack

    def _matrix_of(self, numbers: Ints) -> Floats:
        """These columns, and slacks, beside each other."""
        matrix = self._columns[:, np.maximum(numbers, 0)]
        slacks = rows_where(numbers < 0)
        matrix[:, slacks] = 0.0
        matrix[-1 - numbers[slacks], slacks] = 1.0
        return matrix

    def _basic_values(self) -> Floats:
        return np.where(self._basis >= 0, self._values[np.maximum(self._basis, 0)], 0.0)


def _leaving(amount: Floats, direction: Floats) -> int:
    """The row that reaches zero first; of several the one with the largest pivot."""
    limits = direction > TINY * max(1.0, float(np.abs(direction).max()))
    ratio = np.where(limits, amount / np.where(limits, direction, 1.0), np.inf)
    close = ratio <= ratio.min() * (1 + 1e-9) + 1e-12
    return int(np.where(close, direction, -np.inf).argmax())
