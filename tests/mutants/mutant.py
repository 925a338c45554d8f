"""One mistake in the code, and the tests or simulated lives that have to notice it."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATIENCE = 300.0  # seconds; a mutant may make the code go round for ever
_CRASHES = frozenset({"AttributeError", "NameError", "TypeError", "UnboundLocalError"})
_IGNORED = shutil.ignore_patterns("__pycache__")


@dataclass(frozen=True, slots=True)
class Mutant:
    """`old` is in `balancerd/FILE` once; with `new` in its place something has to fail.

    Of a rule `name` says what goes wrong; of a guard it is the guard, and `protects` says what for.
    """

    name: str
    file: str
    old: str
    new: str
    test: str  # a file of tests, or one test as pytest names it
    protects: str = ""

    def found(self) -> int:
        """How often the text to be replaced is in the code as it is."""
        return (ROOT / "balancerd" / self.file).read_text().count(self.old)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What noticed a mutant, and else what is wrong: it survives, or could not be judged."""

    caught_by: str = ""
    fault: str = ""


def judge(mutant: Mutant, lives: str = "", noticed: str = "") -> Verdict:
    """Make the mistake in a copy of the code, and see whether it is noticed there.

    By its test; with `lives`, seeds like "0-39", by these simulated lives alone. `noticed`: which
    one of its tests did so when last asked, and is asked first, as that takes less time.
    """
    if mutant.found() != 1:
        return Verdict(fault=f"CANNOT BE MADE: its text is there {mutant.found()} times")
    with copied() as folder:
        file = folder / "balancerd" / mutant.file
        file.write_text(file.read_text().replace(mutant.old, mutant.new))
        try:
            if lives:
                return _lived(folder, lives)
            soon = _tested(folder, noticed) if noticed else Verdict(fault="SURVIVES")
            return _tested(folder, mutant.test) if soon.fault else soon
        except subprocess.TimeoutExpired:
            return Verdict(fault="DOES NOT END: name a test that fails before")


def failing(tests: Iterable[str]) -> str:
    """Which of these tests fails on the code as it is, and so proves nothing; "" if none does."""
    names = sorted(set(tests))
    if not names:
        return ""
    with copied() as folder:
        done = _run(folder, "pytest", "-q", "-x", "-p", "no:cacheprovider", *names)
    return "" if done.returncode == 0 else done.stdout[-500:]


@contextmanager
def copied() -> Iterator[Path]:
    """A copy of the package and its tests, which may be spoilt."""
    with tempfile.TemporaryDirectory(prefix="balancerd-mutant-") as name:
        folder = Path(name)
        for part in ("balancerd", "tests", "policies"):
            shutil.copytree(ROOT / part, folder / part, ignore=_IGNORED)
        shutil.copy(ROOT / "pyproject.toml", folder)
        yield folder


def _run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A program's end; subprocess.TimeoutExpired where it does not come."""
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "CI": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


def _tested(folder: Path, test: str) -> Verdict:
    done = _run(folder, "pytest", "-q", "-x", "-p", "no:cacheprovider", test)
    if done.returncode == 0:
        return Verdict(fault="SURVIVES")
    failed = re.search(r"^FAILED tests/(\S+)\.py::(\w+)(.*)", done.stdout, re.MULTILINE)
    if done.returncode != 1 or failed is None:
        return Verdict(fault=f"ERROR: {done.stdout[-300:]!r}")
    reason = re.search(r" - (\w+)", failed[3])
    if reason and reason[1] in _CRASHES:
        return Verdict(fault=f"CRASHES: {reason[1]}, which any test would notice")
    return Verdict(f"{failed[1]}: {failed[2]}")


def _lived(folder: Path, seeds: str) -> Verdict:
    done = _run(folder, "tests.sim.seeds", seeds)
    broken = re.search(r"^(seed \d+): (.*)$", done.stdout, re.MULTILINE)
    if done.returncode == 0:
        return Verdict(fault="SURVIVES")
    if broken is None:
        return Verdict(fault=f"ERROR: {done.stderr[-300:]!r}")
    return Verdict(f"sim/seeds: {broken[1]}")
