"""Running commands, with a failure told in one sentence."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from .layout import LabError


def run(argv: Sequence[str], text: str = "", timeout: float = 60, name: str = "") -> str:
    """Standard output of a command that must succeed; `name` stands for it in error messages."""
    name = name or " ".join(argv[:4])
    try:
        done = subprocess.run(
            argv, input=text, capture_output=True, text=True, timeout=timeout, check=False
        )
    except FileNotFoundError:
        raise LabError(f"the command {argv[0]} is missing; run tests/lab/rig/install") from None
    except subprocess.TimeoutExpired:
        raise LabError(f"{name} did not end within {timeout:.0f} s") from None
    if done.returncode != 0:
        why = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
        raise LabError(f"{name}: {why[-1]}")
    return done.stdout


def succeeds(argv: Sequence[str]) -> bool:
    """Whether a command that may fail did not."""
    try:
        run(argv)
    except LabError:
        return False
    return True
