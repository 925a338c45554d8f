"""What one simulated life is made of: a small site, the faults that strike it, and its policy.

All of it is drawn from the life's own source of chance, so that a seed is a life.
"""

import random
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from balancerd.adapters.sim.scenario import FaultKind, Scenario
from balancerd.core.policies.policy import Policy
from balancerd.core.units import GIB

STEPS = 200  # cycles of a life
CALM_FROM = 0.6  # share of the life after which nothing new goes wrong
CYCLE = 60.0  # seconds of virtual time
RELOAD = 0.005  # chance before each cycle that another policy is put in force
CLOCK_SET = 0.005  # chance before each cycle that somebody sets balancerd's clock
RECONFIGURED = (
    0.006  # chance before each cycle that hosts are added to the configuration, or removed
)
FEWEST = 3  # hosts that stay in it
UNKNOWN_FIRST = 0.2  # share of lives in which one host is not in it at the start
START = 1_700_000_000.0
PINNED = {"h1", "h2"}  # the hosts of v2
PHASES = ("start", "perform", "gap", "gap", "post-copy", "post-copy", "finish")
OBJECTIVES = ("spread", "pack", "quiet", "spread", "pack", "quiet", "drain", "defragment")
ENGINES = ("builtin",) * 16 + ("exact", "shadow")
STRIKES = dict.fromkeys(FaultKind, 3) | {FaultKind.MIGRATION_FAILS: 6}


class Locks(StrEnum):
    """What forbids two copies of a VM to write to its disks."""

    SHOWN = "shown"  # libvirt says that there are locks
    HIDDEN = "hidden"  # something else does it, which libvirt knows nothing of
    NONE = "none"


# How a policy may have VMs moved whose locks do not show.
UNLOCKED = {
    Locks.SHOWN: ("hand-over", "plain", "refuse"),
    Locks.HIDDEN: ("plain", "plain", "hand-over", "refuse"),
    Locks.NONE: ("hand-over", "hand-over", "hand-over", "refuse"),
}


def locks_of(seed: int) -> Locks:
    """Those of a life: libvirt tells of most."""
    shown, hidden, none = Locks.SHOWN, Locks.HIDDEN, Locks.NONE
    return (shown, shown, hidden, none, shown, shown, shown, none)[seed % 8]


def draw_scenario(rng: random.Random, locks: Locks) -> Scenario:
    """A site of 4 to 6 hosts and 8 to 14 VMs, and the faults that will strike it."""
    hosts, vms = rng.randint(4, 6), rng.randint(8, 14)
    return Scenario.model_validate(
        {
            "name": "seed",
            "start": START,
            "duration": STEPS * CYCLE,
            "cycle": CYCLE,
            "hosts": [
                {
                    "name": "h%d",
                    "count": hosts,
                    "first": 1,
                    "cores": 8,
                    "memory": 32 * GIB,
                    "power_curve": [100.0, 250.0],
                }
            ],
            "flavours": [draw_flavour(rng) for _ in range(3)],
            "vms": {"name": "v%d", "count": vms},
            "network": {"host": 125_000_000, "racks": 2},
            "load": {"step": 300.0, "seed": rng.randrange(10**6), "level": rng.uniform(0.2, 0.8)},
            "power": {"boot": 120.0, "shutdown": 30.0},
            "migration": {
                "setup": 0.5,
                "switch_over": rng.choice([0.0, 2.0]),
                "disk_locks": locks is not Locks.NONE,
                "locks_shown": locks is Locks.SHOWN,
            },
            "seed": rng.randrange(10**6),
            "faults": draw_faults(rng),
        }
    )


def draw_flavour(rng: random.Random) -> dict[str, Any]:
    """VMs of one kind; some write faster than they can be copied, some have a disk of their own,
    as a rule on a base image, some may be moved by post-copy."""
    tags = {"class": rng.choice(["latency", "normal", "batch"])}
    if rng.random() < 0.8:
        tags["post-copy"] = "yes"
    if rng.random() < 0.8:
        tags["overlay"] = "yes"
    return {
        "vcpus": 2,
        "cpu": 2.0,
        "memory": rng.choice([2, 3, 4]) * GIB,
        "dirty_rate": rng.choice([0, 20, 150, 300]) * 10**6,
        "local_disk": rng.choice([0, 0, 0, 4]) * GIB,
        "on_top": rng.choice([0, 1, 2]) * GIB,
        "autostart": rng.random() < 0.5,
        "tags": tags,
    }


def draw_faults(rng: random.Random) -> list[dict[str, Any]]:
    """A random part of the catalogue: each life has its own kinds, so that rare pairs meet."""
    span = STEPS * CYCLE * CALM_FROM
    faults: list[dict[str, Any]] = []
    for kind in FaultKind:
        if rng.random() < 0.5:
            continue
        for _ in range(rng.randint(1, STRIKES[kind])):
            begin = rng.uniform(0.05, 0.9) * span
            fault: dict[str, Any] = {
                "kind": kind.value,
                "at": begin,
                "lasts": min(rng.uniform(20.0, 1200.0), span - begin),
            }
            if kind is FaultKind.MIGRATION_FAILS:
                fault |= {
                    "phase": rng.choice(PHASES),
                    "chance": rng.choice([0.3, 1.0]),
                }
                if fault["phase"] == "post-copy":  # so few are, and for a short time
                    fault |= {"at": 0.0, "lasts": span}
            faults.append(fault)
    return faults


def draw_full_disk(rng: random.Random) -> tuple[float, float]:
    """Seconds since the start between which the ledger takes nothing; in most lives never."""
    if rng.random() < 0.7:
        return 0.0, 0.0
    span = STEPS * CYCLE * CALM_FROM
    begin = rng.uniform(0.1, 0.8) * span
    return begin, min(begin + rng.uniform(20.0, 1200.0), span)


def draw_limits(rng: random.Random) -> dict[str, Any]:
    """How much change at once, and how soon again."""
    return {
        "per_site": rng.randint(1, 4),
        "per_host": rng.randint(1, 2),
        "cooldown": rng.choice([300.0, 900.0]),
        "cooldown_max": 3600.0,
        "backoff": 120.0,
        "stall": 60.0,
        "veto": rng.choice([0.0, 300.0]),
        "bandwidth": rng.choice([20, 100]) * 10**6,
        "gain": 0.01,
        "storage_weight": rng.randint(1, 4),
    }


def draw_policy(rng: random.Random, locks: Locks, before: Policy | None = None) -> Policy:
    """Any objective; short spans, so that a life of 200 cycles sees many decisions. One that takes
    another's place in the middle of a life keeps what the whole life is held to."""
    limits = before.limits.model_dump() if before else draw_limits(rng)
    return Policy.model_validate(
        {
            "summary": "seed",
            "name": "seed",
            "mode": rng.choice(["act", "act", "act", "advise"]),
            "objective": rng.choice(OBJECTIVES),
            "engine": rng.choice(ENGINES),
            "window": draw_windows(rng),
            "thresholds": {"imbalance": 0.1},
            "detection": {"window": 180.0, "warm_up": 120.0, "stale_after": 90.0},
            "capacity": {"spread_factor": rng.choice([0.0, 1.0, 2.0])},
            "limits": limits,
            "methods": {
                "post_copy": rng.random() < 0.7,
                "storage": rng.random() < 0.8,
                "overlay": rng.random() < 0.7,
                "auto_converge": rng.random() < 0.7,
                "cold": rng.random() < 0.9,
                "unlocked": rng.choice(UNLOCKED[locks]),
            },
            "power": {
                "sleep_idle": rng.random() < 0.5,
                "keep_on": 1,
                "reserve": rng.randint(0, 1),
                "idle_for": 120.0,
                "min_on": 300.0,
                "min_off": 300.0,
            },
            "constraint": [
                {"kind": "apart", "vms": ["v0", "v1"]},
                {"kind": "pin", "vms": ["v2"], "hosts": sorted(PINNED)},
                {"kind": "together", "vms": ["v3", "v4"]},
            ],
        }
    )


def draw_windows(rng: random.Random) -> list[dict[str, Any]]:
    """In some lives a span of time in which another policy holds."""
    if rng.random() < 0.6:
        return []
    begin = START + rng.uniform(0.0, 0.6) * STEPS * CYCLE
    end = begin + rng.uniform(600.0, 4800.0)
    return [
        {
            "name": "another time",
            "from": _time_of_day(begin),
            "to": _time_of_day(end),
            "timezone": "UTC",
            "mode": rng.choice(["act", "act", "advise", "observe"]),
            "objective": rng.choice(OBJECTIVES),
            "power": {"sleep_idle": rng.random() < 0.5},
            "methods": {"post_copy": rng.random() < 0.5, "storage": rng.random() < 0.5},
        }
    ]


def _time_of_day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M")
