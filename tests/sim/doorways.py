"""What every act is held to besides, reckoned the long way from what the loop saw."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from math import sqrt

from balancerd.core.model import PowerState, Snapshot, VMState
from balancerd.core.observation import Observation, VMReadings
from balancerd.core.placing.layout import memory_capacity
from balancerd.core.policies.policy import Policy
from balancerd.core.policies.tables import Detection

ROUNDING = 1e-6


def frozen(seen: Observation, power: Mapping[str, PowerState], detection: Detection) -> str:
    """Why nothing may begin on what was seen: a split brain, or too many hosts that are silent."""
    runs: defaultdict[str, set[str]] = defaultdict(set)
    for reading in seen.readings:
        for vm in VMReadings.of(reading.vms).shown:
            if vm.state is VMState.RUNNING:
                runs[vm.vm.uuid].add(reading.host)
    for uuid, hosts in sorted(runs.items()):
        if uuid and len(hosts) > 1:
            return f"{uuid} runs on {' and '.join(sorted(hosts))}"
    asked = [one for one in seen.readings if power[one.host] is not PowerState.OFF]
    on_its_way = (PowerState.WAKING, PowerState.SLEEPING)  # then silence is to be expected
    silent = [one.host for one in asked if one.error and power[one.host] not in on_its_way]
    if len(silent) > detection.unknown_hosts * len(asked):
        return f"{', '.join(silent)} of {len(asked)} hosts are silent"
    return ""


def crowded(snapshot: Snapshot, policy: Policy, there: Collection[str], target: str) -> str:
    """By how much a host with these VMs is above its landing limits; "" where it is not. A VM
    without a forecast counts for nothing here, so that this never says more than is known."""
    host, bands = snapshot.cluster.hosts[target], policy.thresholds
    cpu, memory = snapshot.overhead.get(target, (0.0, 0))
    memory += sum(snapshot.cluster.vms[vm].memory for vm in there)
    room = bands.memory.landing * memory_capacity(host, policy)
    if memory > room * (1 + ROUNDING):
        return f"{memory} bytes on {target}, where {room:.0f} may land"
    expected = [one for vm in there if (one := snapshot.forecasts.get(vm))]
    spread = sqrt(sum(one.spread**2 for one in expected))
    cpu += sum(one.cpu for one in expected) + policy.capacity.spread_factor * spread
    if cpu > bands.cpu.landing * host.cpu * (1 + ROUNDING):
        return f"{cpu:.3f} cores on {target}, where {bands.cpu.landing * host.cpu:.3f} may land"
    return ""
