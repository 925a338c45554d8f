"""What the benchmarks go by."""

from pathlib import Path

from balancerd.adapters.sim.scenario import Scenario
from balancerd.documents import load

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_the_enforced_day_is_the_classic_one_but_for_its_memory() -> None:
    """Dies when one of the two files is changed and the other is forgotten."""
    free = load(str(BENCHMARKS / "classic.toml"), Scenario)
    enforced = load(str(BENCHMARKS / "classic-enforced.toml"), Scenario)
    same = {"name": free.name, "summary": free.summary, "memory": free.memory}
    assert (free.memory, enforced.memory) == ("free", "enforced")
    assert enforced.model_copy(update=same) == free
