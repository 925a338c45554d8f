"""How far forecasts of VMs' CPU are off, with and without what the hours of the day foresee.

    python benchmarks/forecast.py [TRACES]

TRACES holds days of PlanetLab (archives or folders), which are chained: VMs that are in all of
them, one day after the other, though there are weeks between. Beside them a made-up site: people by
day on top of a level, quieter weekends, noise with a memory of two hours. Forecasts are of the next
hour, from the third day on. Prints one JSON object; shares are of a VM's size.

level      exponential smoothing with a memory of one hour, all there is on a site's first days
profile    what is forecast: the level, and the turns that habits foresee as far as they came true
off, site_off   mean distance from what came: of each VM, and of all VMs' mean
pinball    mean loss of the 84 % quantile that the forecast and its spread name (one deviation)
covered    share of readings of twenty VMs together that lie below forecast and one deviation (84 %
           is right), and two (98 %); the profile's spread holds the part that errs together
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from balancerd.core.sensing.forecast import MEMORY, Pasts, remember
from balancerd.core.sensing.profile import Profile, inflated
from balancerd.core.units import DAY, HOUR
from benchmarks.world import days

STEP = 300.0
AHEAD = 12  # readings of an hour
FIRST = 2 * 288  # reading from which forecasts count
EACH = 3  # forecasts are made at every so many readings
CROWD = 20
QUANTILE = 0.84
MONDAY = 4 * DAY

Floats = np.ndarray[Any, np.dtype[np.float64]]


def chained(folders: list[Path]) -> Floats:
    """VMs × readings."""
    common = sorted(set.intersection(*({file.name for file in day.iterdir()} for day in folders)))
    rows = [[np.loadtxt(day / name)[:288] / 100.0 for day in folders] for name in common]
    return np.array([np.concatenate(row) for row in rows])


def working(vms: int, length: int, seed: int) -> Floats:
    """People by day, in so many days."""
    random, count = np.random.default_rng(seed), 288 * length
    time = np.arange(count) / 288
    level, noon = random.uniform(0.1, 0.5, vms), random.normal(0.6, 0.06, vms)
    busy = 1.6 * random.uniform(0.0, 1.0, vms) * level * (random.random(vms) < 0.6)
    week = np.where(time // 1 % 7 >= 5, 0.4, 1.0)
    day = np.maximum(0.0, np.cos(2 * np.pi * (time - noon[:, np.newaxis]))) * week
    noise = random.normal(0.0, 1.0, (vms, count))
    keeps = np.exp(-STEP / (2 * HOUR))
    for column in range(1, count):
        noise[:, column] *= np.sqrt(1.0 - keeps**2)
        noise[:, column] += keeps * noise[:, column - 1]
    load: Floats = np.clip(
        level[:, np.newaxis] * (1.0 + 0.1 * noise) + busy[:, np.newaxis] * day, 0.0, 1.0
    )
    return load


def measure(load: Floats) -> dict[str, Any]:
    """The figures of one series."""
    found: dict[str, list[dict[str, float]]] = {"level": [], "profile": []}
    profile = None
    for at, pasts, profile, came in _followed(load):
        turn = profile.turn(at - MEMORY, at, at + HOUR)
        crowded = inflated(pasts.variance, profile.together.share, CROWD)
        found["level"].append(_figures(pasts.level, pasts.variance, pasts.variance, came))
        expected = np.clip(pasts.level + turn, 0.0, 1.0)
        found["profile"].append(_figures(expected, pasts.variance, crowded, came))
    assert profile is not None
    told = {
        name: {key: round(float(np.mean([row[key] for row in rows])), 5) for key in rows[0]}
        for name, rows in found.items()
    }
    shares = {
        "trust_site": profile.whole.share,
        "trust_own": profile.own.share,
        "together": profile.together.share,
    }
    return {"vms": len(load), **told, **{key: round(value, 4) for key, value in shares.items()}}


def _followed(load: Floats) -> Iterator[tuple[float, Pasts, Profile, Floats]]:
    """Each moment at which a forecast is made, what was learned by then, and what came after."""
    names = tuple(f"v{row}" for row in range(len(load)))
    pasts, profile = Pasts.of({}).among(names), Profile.none().among(names)
    for reading in range(load.shape[1] - AHEAD):
        at, cpu = MONDAY + reading * STEP, load[:, reading]
        pasts = remember(pasts, np.full(len(names), at), cpu)
        profile = profile.read(at, cpu)
        if reading >= FIRST and reading % EACH == 0:
            yield at, pasts, profile, load[:, reading + 1 : reading + 1 + AHEAD]


def _figures(expected: Floats, own: Floats, crowded: Floats, came: Floats) -> dict[str, float]:
    mean, count = came.mean(axis=1), len(expected) // CROWD * CROWD

    def crowds(values: Floats) -> Floats:
        return np.asarray(values[:count].reshape(-1, CROWD, *values.shape[1:]).sum(axis=1))

    short = came - (expected + np.sqrt(own))[:, np.newaxis]
    middle, spread = crowds(expected)[:, np.newaxis], np.sqrt(crowds(crowded))[:, np.newaxis]
    return {
        "off": float(np.abs(mean - expected).mean()),
        "site_off": float(abs(mean.mean() - expected.mean())),
        "pinball": float(np.maximum(QUANTILE * short, (QUANTILE - 1.0) * short).mean()),
        "covered_by_1": float((crowds(came) <= middle + spread).mean()),
        "covered_by_2": float((crowds(came) <= middle + 2.0 * spread).mean()),
    }


def main(arguments: list[str]) -> None:
    results = {
        "working days, 10 days": measure(working(400, 10, 0)),
        "working days, 24 days": measure(working(200, 24, 1)),
    }
    with days(arguments) as found:
        if len(found) * 288 > FIRST + AHEAD:
            folders = list(found.values())
            results[f"planetlab, {len(folders)} days chained"] = measure(chained(folders))
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
