"""What HiGHS makes of a placement instance, on this machine and in this run.

    python benchmarks/solver.py SECONDS FILE...

A ratio of two times that were measured side by side means something on any machine, however busy.
One thread; building the model does not count. Prints one JSON object. Needs `highspy`.
"""

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

INF = float("inf")
Term = tuple[int, float]  # a column, and its factor


class _Model:
    """Columns and rows of a mixed-integer program, as they are said."""

    def __init__(self) -> None:
        self.cost: list[float] = []
        self.upper: list[float] = []
        self.whole: list[bool] = []
        self.rows: list[tuple[list[Term], float, float]] = []

    def column(self, cost: float, upper: float = 1.0, *, whole: bool = True) -> int:
        """A variable from 0 to `upper`; its number."""
        self.cost.append(cost)
        self.upper.append(upper)
        self.whole.append(whole)
        return len(self.cost) - 1

    def row(self, terms: Iterable[Term], high: float, low: float = -INF) -> None:
        """The sum of the terms is to lie between the two."""
        self.rows.append((list(terms), low, high))


def _said(instance: dict[str, Any]) -> _Model:
    """The instance as a program: a column for each VM on each of its candidates."""
    model, hosts = _Model(), range(instance["hosts"])
    at: list[dict[int, int]] = [
        {
            host: model.column(vm["move_cost"] * (host != vm["host"]))
            for host in sorted({*vm["candidates"], vm["host"]})
        }
        for vm in instance["vms"]
    ]
    for columns in at:
        model.row([(column, 1.0) for column in columns.values()], 1.0, 1.0)

    def used(what: str, host: int) -> list[Term]:
        pairs = zip(instance["vms"], at, strict=True)
        return [(columns[host], vm[what]) for vm, columns in pairs if host in columns]

    if instance["kind"] == "pack":
        for host in hosts:
            on = model.column(instance["host_cost"])
            for what in ("cpu", "memory"):
                model.row([*used(what, host), (on, -instance[f"{what}_cap"])], 0.0)
        return model
    for host in hosts:
        over = model.column(instance["overload_penalty"], INF, whole=False)
        model.row([*used("cpu", host), (over, -1.0)], instance["cpu_soft"])
        for what in ("cpu", "memory"):
            model.row(used(what, host), instance[f"{what}_hard"])
        for group in instance["apart"]:
            model.row([(at[vm][host], 1.0) for vm in group if host in at[vm]], 1.0)
    return model


def solve(instance: dict[str, Any], seconds: float) -> dict[str, float]:
    """Objective and proven bound after so many seconds at most, and the CPU seconds it took."""
    model = _said(instance)
    with _on_stderr():
        solver = _loaded(model, seconds)
        begun = time.process_time()
        solver.run()
        spent, info = time.process_time() - begun, solver.getInfo()
    return {
        "objective": round(info.objective_function_value, 6),
        "bound": round(info.mip_dual_bound, 2),
        "cpu_seconds": round(spent, 3),
    }


@contextmanager
def _on_stderr() -> Iterator[None]:
    """HiGHS greets whoever calls it: not where the result is printed."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    yield
    os.dup2(kept, 1)
    os.close(kept)


def _loaded(model: _Model, seconds: float) -> Any:
    """HiGHS with the model, on one thread."""
    import highspy

    solver: Any = highspy.Highs()  # type: ignore[no-untyped-call]
    program = highspy.HighsLp()
    for name, value in (("output_flag", False), ("threads", 1), ("time_limit", seconds)):
        solver.setOptionValue(name, value)
    program.num_col_, program.num_row_ = len(model.cost), len(model.rows)
    program.col_cost_, program.col_upper_ = np.array(model.cost), np.array(model.upper)
    program.col_lower_ = np.zeros(len(model.cost))
    program.row_lower_ = np.array([low for _, low, _ in model.rows])
    program.row_upper_ = np.array([high for _, _, high in model.rows])
    matrix, terms = program.a_matrix_, [terms for terms, _, _ in model.rows]
    matrix.format_ = highspy.MatrixFormat.kRowwise
    matrix.start_ = np.cumsum([0, *map(len, terms)])
    matrix.index_ = np.array([column for column, _ in chain.from_iterable(terms)])
    matrix.value_ = np.array([factor for _, factor in chain.from_iterable(terms)])
    kinds = highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger
    program.integrality_ = [kinds[whole] for whole in model.whole]
    solver.passModel(program)
    return solver


def main(seconds: float, paths: list[str]) -> None:
    results = {}
    for path in map(Path, paths):
        instance = json.loads(path.read_text(encoding="utf-8"))
        results[path.stem] = solve(instance, seconds)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
