"""Broken instruments: hosts whose counters stand still or say what cannot be."""

from collections.abc import Callable
from dataclasses import replace
from math import nan

from balancerd.core.observation import HostCounters, HostReading, Observation

Distortion = Callable[[HostCounters], HostCounters]
DISTORTIONS: tuple[Distortion, ...] = (
    lambda counters: replace(counters, cpu_busy=nan),
    lambda counters: replace(counters, cpu_busy=-1.0),
    lambda counters: replace(counters, cpu_busy=1e12),
    lambda counters: replace(counters, memory_available=2 * counters.memory_total),
    lambda counters: replace(counters, memory_total=0),
)


class Instruments:
    """Which hosts read falsely now, and how."""

    def __init__(self) -> None:
        self._frozen: dict[int, HostReading | None] = {}
        self._distorted: dict[int, Distortion] = {}

    def freeze(self, host: int) -> None:
        """The counters of the host's next reading are given again and again."""
        self._frozen[host] = None

    def distort(self, host: int, distortion: Distortion) -> None:
        """The host's counters go through the distortion."""
        self._distorted[host] = distortion

    def repair(self, host: int) -> None:
        """The host reads truly again."""
        self._frozen.pop(host, None)
        self._distorted.pop(host, None)

    def disturb(self, observation: Observation) -> Observation:
        """The observation as these instruments give it."""
        if not (self._frozen or self._distorted):
            return observation
        readings = list(observation.readings)
        for host in self._frozen:
            if not readings[host].error:
                kept = self._frozen[host] = self._frozen[host] or readings[host]
                readings[host] = _with_counters_of(kept, readings[host])
        for host, distortion in self._distorted.items():
            counters = readings[host].counters
            if counters:
                readings[host] = replace(readings[host], counters=distortion(counters))
        return Observation(observation.at, tuple(readings))


def _with_counters_of(kept: HostReading, fresh: HostReading) -> HostReading:
    """The fresh reading of a host, with the counters that it and its VMs once had."""
    counters = {vm.vm.name: vm.counters for vm in kept.vms}
    vms = tuple(replace(vm, counters=counters.get(vm.vm.name, vm.counters)) for vm in fresh.vms)
    return replace(fresh, counters=kept.counters, vms=vms)
