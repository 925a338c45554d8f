"""Hundreds of small sites live through faults, crashes and operators; no invariant may ever break.

What a life is, `seeds.py` says. Set BALANCERD_SEEDS ("7000-7999") for others than these.
"""

import gc
import os
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor

from balancerd.adapters.sim.scenario import FaultKind
from tests.sim.seeds import Lived, run, seeds_of

SEEDS = os.environ.get("BALANCERD_SEEDS", "0-299")
ENOUGH = 300  # lives, in which everything happens
BY_BALANCERD = (
    *(
        "done",
        "failed",
        "aborted",
        "lost",
        "quarantined",
        "not started",
        "objected",
        "adopted",
        "handed over",
    ),
    *("pre-copy", "auto-converge", "post-copy", "storage", "overlay", "cold"),
    "lost in post-copy",
)
ACTS = (
    *("set bandwidth", "set downtime", "switch to post-copy", "abort", "set autostart"),
    *("resume", "resume what arrived", "destroy", "undefine"),
    "migrate in spite of locks that do not show",
)
EVERYTHING = frozenset(
    {
        *(f"fault: {kind}" for kind in FaultKind),
        *("kill of balancerd", "cycle on a full disk", "clock set"),
        *("pause", "resume", "drain", "undrain", "approve", "reject", "abort", "hurry", "close"),
        *("migration by hand", "rival migration", "pause by hand", "shut_off by hand"),
        *("crash by hand", "define by hand", "abort by hand", "start by hand"),
        *("undefine by hand", "create by hand", "solver asked", "solver failed"),
        *("host removed from the configuration", "host added to the configuration"),
        *(f"migrate: {end}" for end in BY_BALANCERD),
        *(f"act: {act}" for act in ACTS),
        *("set", "post-copy recovered", "window", "another policy", "sleep: done", "wake: done"),
    }
)


def unseen(lives: Iterable[Lived]) -> set[str]:
    """What lives are drawn to go through, and happened in none of these."""
    happened = sum((lived.happened for lived in lives), Counter[str]())
    return set(EVERYTHING - happened.keys())


def test_no_life_breaks_an_invariant() -> None:
    """Dies with most guards of the executor removed; and where something happens in no life any
    more, so that nothing is said about it."""
    seeds = list(seeds_of(SEEDS))
    with ProcessPoolExecutor(initializer=gc.freeze) as pool:
        lives = dict(zip(seeds, pool.map(run, seeds), strict=True))
    broken = [
        f"seed {seed}: {lived.fault} (python -m tests.sim.seeds {seed})"
        for seed, lived in lives.items()
        if lived.fault
    ]
    assert not broken, "\n".join(broken)
    assert len(lives) < ENOUGH or not unseen(lives.values())


def test_what_happens_in_no_life_is_named() -> None:
    one = Lived("", Counter(EVERYTHING - {"set", "wake: done"}))
    other = Lived("", Counter({"wake: done": 1}))
    assert unseen([one, other]) == {"set"}
