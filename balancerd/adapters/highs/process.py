"""The solver's process: a program on standard input, its solution on standard output.

    python -m balancerd.adapters.highs.process SECONDS BYTES

Run with a cap on its memory, so that a program too large ends this process and nothing else.
"""

import io
import os
import resource
import sys
import time
from typing import Any

import numpy as np

SEARCHING = 0.8  # of the time: HiGHS looks at its clock rarely, and may take a while to end
SHARE = 1e-6  # of the cost: a solution proven to be so close to the best is the best


def main(seconds: float, memory: int) -> None:
    """Solve what standard input holds."""
    begun = time.monotonic()
    if memory:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    # Whatever HiGHS prints must not get between us and who reads the answer.
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False) as content:
        program = {name: content[name] for name in content.files}
    found = io.BytesIO()
    left = max(0.1, SEARCHING * seconds - (time.monotonic() - begun))
    np.savez(found, **solution(program, left))
    answer.write(found.getvalue())
    answer.close()


def solution(program: dict[str, Any], seconds: float) -> dict[str, Any]:
    """What HiGHS makes of a program: x (empty where it found none), the bound, and words."""
    import highspy

    solver: Any = highspy.Highs()  # type: ignore[no-untyped-call]
    for name, value in (
        ("output_flag", False),
        ("threads", 1),
        ("random_seed", 0),
        ("mip_rel_gap", SHARE),
        ("time_limit", seconds),
    ):
        solver.setOptionValue(name, value)
    solver.passModel(_model(highspy, program))
    begin = highspy.HighsSolution()
    begin.col_value = program["start"].tolist()
    solver.setSolution(begin)
    solver.run()
    info = solver.getInfo()
    told = solver.modelStatusToString(solver.getModelStatus()).lower()
    feasible = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    x = np.array(solver.getSolution().col_value) if feasible else np.zeros(0)
    return {"x": x, "bound": info.mip_dual_bound, "told": told}


def _model(highspy: Any, program: dict[str, Any]) -> Any:
    """The program in HiGHS's own terms."""
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = len(program["cost"]), len(program["low"])
    lp.col_cost_ = program["cost"]
    lp.col_lower_ = np.zeros(lp.num_col_)
    lp.col_upper_ = program["upper"]
    lp.row_lower_, lp.row_upper_ = program["low"], program["high"]
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.start_ = program["starts"]
    lp.a_matrix_.index_ = program["columns"]
    lp.a_matrix_.value_ = program["values"]
    kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
    lp.integrality_ = [kinds[bool(whole)] for whole in program["whole"]]
    return lp


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
