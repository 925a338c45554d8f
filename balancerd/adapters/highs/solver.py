"""A solver as a function: its process is started for each program, and never outlives it.

Whatever becomes of the process (no memory, no end, no such module) is told in words; the caller
has a plan without it.
"""

import io
import os
import signal
import subprocess
import sys
import zipfile

import numpy as np

from balancerd.core.exact import Program, Solution

PROCESS = (sys.executable, "-m", "balancerd.adapters.highs.process")
GRACE = 5.0  # seconds beyond its time that a solver has to say what it found
ARRAYS = ("cost", "upper", "whole", "low", "high", "starts", "columns", "values", "start")
NOTHING = float("-inf")


def solve(
    program: Program, seconds: float, memory: int, command: tuple[str, ...] = PROCESS
) -> Solution:
    """What HiGHS finds in so many seconds and bytes; a `Solution` without x where it fails."""
    content = io.BytesIO()
    np.savez(content, **{name: getattr(program, name) for name in ARRAYS})
    # The linear algebra of numpy would reserve memory for a thread on each core.
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [*command, repr(seconds), str(memory)],
            input=content.getvalue(),
            capture_output=True,
            timeout=seconds + GRACE,
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return Solution(None, NOTHING, f"was killed after {seconds + GRACE:g} s")
    except OSError as error:
        return Solution(None, NOTHING, f"could not be started ({error.strerror})")
    if done.returncode:
        return Solution(None, NOTHING, _failed(done.returncode, done.stderr))
    return _found(done.stdout, len(program.cost))


def _failed(code: int, errors: bytes) -> str:
    """How the process ended, with its last words."""
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    lines = errors.decode(errors="replace").strip().splitlines()
    return f"{how} ({lines[-1].strip()[:80]})" if lines else how


def _found(output: bytes, columns: int) -> Solution:
    """The process's answer, if it is one."""
    try:
        with np.load(io.BytesIO(output), allow_pickle=False) as content:
            x, bound = content["x"].astype(np.float64), float(content["bound"])
            told = str(content["told"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return Solution(None, NOTHING, "gave no answer that can be read")
    usable = x.shape == (columns,) and bool(np.isfinite(x).all())
    return Solution(x if usable else None, bound, told)
