"""What a simulated run was worth, from the world's own accounts.

SLATAH, PDM, SLAV and ESV are those of Beloglazov & Buyya (CCPE 2012), as fractions: SLATAH is the
mean over hosts of the time with more demand than capacity over the time on; PDM the mean over VMs
of the demand lost to migrating over all demand; SLAV their product; ESV that times the energy.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from balancerd.adapters.sim.sharing import Floats
from balancerd.adapters.sim.world import World
from balancerd.core.model import Host
from balancerd.core.units import DAY

JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True, slots=True)
class Score:
    """Sums over the run; shares are fractions of 1."""

    energy_kwh: float
    energy_bound_kwh: float  # the same demand at the best work per watt that any host has
    slatah: float
    pdm: float
    slav: float
    esv: float
    migrations: int  # that ended well
    migrations_failed: int
    bytes_moved: int
    power_offs: int
    power_ons: int
    mean_active_hosts: float  # drawing power
    overload_host_seconds: float
    overload_share: float  # of all host time that draws power
    unserved_core_seconds: float
    unserved_share: float  # of all demand
    violations: int
    vms: int
    days: float
    moves_per_vm: float


def score(world: World) -> Score:
    """The score of everything that happened in a world so far."""
    accounts, site = world.accounts, world.site
    happened = Counter((e["event"], e.get("outcome", e.get("state"))) for e in world.events())
    at_start = sum(1 for _ in site.hosts)
    first = Counter(e["state"] for e in world.events()[len(site.vms) :][:at_start])
    energy = float(accounts.energy.sum()) / JOULES_PER_KWH
    slatah, pdm = (
        _mean_ratio(accounts.overloaded, accounts.powered),
        _mean_ratio(accounts.migration_loss, accounts.requested),
    )
    powered, overloaded = float(accounts.powered.sum()), float(accounts.overloaded.sum())
    requested, unserved = float(accounts.requested.sum()), float(accounts.unserved.sum())
    moves = happened["move_end", "done"]
    return Score(
        energy_kwh=energy,
        energy_bound_kwh=requested * least_joules_per_work(site.hosts) / JOULES_PER_KWH,
        slatah=slatah,
        pdm=pdm,
        slav=slatah * pdm,
        esv=energy * slatah * pdm,
        migrations=moves,
        migrations_failed=happened["move_end", "failed"] + happened["move_end", "aborted"],
        bytes_moved=sum(e["bytes"] for e in world.events() if e["event"] == "move_end"),
        power_offs=happened["power", "off"] - first["off"],
        power_ons=happened["power", "on"] - first["on"],
        mean_active_hosts=_ratio(powered, accounts.seconds),
        overload_host_seconds=overloaded,
        overload_share=_ratio(overloaded, powered),
        unserved_core_seconds=unserved,
        unserved_share=_ratio(unserved, requested),
        violations=len(world.violations),
        vms=len(site.vms),
        days=accounts.seconds / DAY,
        moves_per_vm=_ratio(moves, len(site.vms)),
    )


def least_joules_per_work(hosts: Sequence[Host]) -> float:
    """Joules per reference core and second below which no host of the site works, at any load.

    The draw is straight between the curve's points, so the best ratio is at one of them.
    """
    ratios = [
        watts / (host.cpu * index / (len(host.power_curve) - 1))
        for host in hosts
        for index, watts in enumerate(host.power_curve)
        if index
    ]
    return min(ratios, default=0.0)


def _mean_ratio(part: Floats, whole: Floats) -> float:
    """Mean of the ratios, over those whose whole is not zero."""
    counted = whole > 0
    return float(np.mean(part[counted] / whole[counted])) if counted.any() else 0.0


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
