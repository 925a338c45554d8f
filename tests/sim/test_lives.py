"""Hundreds of small sites live through faults, crashes and operators; no invariant may ever break.

What a life is, and what must hold in it, is in `seeds.py`. Set BALANCERD_SEEDS ("7000-7999") for
others than these.
"""

import os
from concurrent.futures import ProcessPoolExecutor

from tests.sim.seeds import run, seeds_of

SEEDS = os.environ.get("BALANCERD_SEEDS", "0-299")


def test_no_life_breaks_an_invariant() -> None:
    """Dies with most guards of the executor removed."""
    seeds = list(seeds_of(SEEDS))
    with ProcessPoolExecutor() as pool:
        faults = dict(zip(seeds, pool.map(run, seeds, chunksize=5), strict=True))
    broken = [
        f"seed {seed}: {fault} (python -m tests.sim.seeds {seed})"
        for seed, fault in faults.items()
        if fault
    ]
    assert not broken, "\n".join(broken)
