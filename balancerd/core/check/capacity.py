"""What a move's target would have to carry, with all that can be there at the same time."""

from collections.abc import Iterator, Sequence
from math import inf, isfinite, sqrt

from balancerd.core.check.nodes import node_limits
from balancerd.core.check.replay import Replay, Taken
from balancerd.core.model import ABSURD_CORES, Cluster
from balancerd.core.plan import Move
from balancerd.core.policies.rule import matches

TOLERANCE = 1e-6


def check_landing(replay: Replay, move: Move) -> None:
    """The target stays below `landing` with all that can be there, and its vCPUs in bounds."""
    target, cluster = replay.snapshot.cluster.hosts[move.target], replay.snapshot.cluster
    passing = replay.passing(move, lambda host: host == move.target, [move.target])
    moving, staying = [move.vm, *sorted(passing)], replay.staying.get(move.target, [])
    vms = moving + staying
    bands, capacity = replay.policy.thresholds, replay.policy.capacity
    left = 1.0 - _kept_free(replay, move.target)
    cpu, memory = replay.snapshot.overhead.get(move.target, (0.0, 0))
    came, stays = _taken(replay, moving), _stays(replay, move.target)
    cpu += came.cpu + stays.cpu + capacity.spread_factor * sqrt(came.variance + stays.variance)
    _limit(replay, move, "CPU", cpu, bands.cpu.landing * left * target.cpu)
    if capacity.enforce_memory:
        reserve = max(capacity.memory_reserve, capacity.memory_reserve_share * target.memory)
        used = memory + came.memory + stays.memory
        room = bands.memory.landing * left * (target.memory - reserve)
        _limit(replay, move, "memory", used, room)
    vcpus = came.vcpus + stays.vcpus
    _limit(replay, move, "vCPUs", vcpus, capacity.cpu_overcommit * (target.cores or target.cpu))
    if capacity.vms_per_host is not None:
        _limit(replay, move, "VMs", len(vms), capacity.vms_per_host)
    for name, taken, limit in (
        *node_limits(replay, move, target, vms),
        *_huge_pages(cluster, move, vms),
    ):
        _limit(replay, move, name, taken, limit)


def _stays(replay: Replay, host: str) -> Taken:
    """What VMs take of a host that are there from beginning to end."""
    if host not in replay.stays:
        replay.stays[host] = _taken(replay, replay.staying.get(host, ()))
    return replay.stays[host]


def _taken(replay: Replay, vms: Sequence[str]) -> Taken:
    """What VMs take of their host together."""
    cpu, variance, memory, vcpus = 0.0, 0.0, 0, 0
    for name in vms:
        vm, (expected, spread) = replay.snapshot.cluster.vms[name], demand(replay, name)
        cpu += expected
        variance += spread * spread
        memory += max(0, vm.memory)
        vcpus += vm.vcpus
    return Taken(cpu, variance, memory, vcpus)


def _huge_pages(
    cluster: Cluster, move: Move, vms: Sequence[str]
) -> Iterator[tuple[str, float, float]]:
    """Name, use and limit of each kind of huge pages that the VM has; of any kind the most."""
    pools = cluster.hosts[move.target].huge_pages
    for size in sorted({pages.size for pages in cluster.vms[move.vm].huge_pages}):
        taken = [p.memory for vm in vms for p in cluster.vms[vm].huge_pages if p.size == size]
        there = [pool.memory for pool in pools if size in (0, pool.size)]
        kind = f"huge pages of {size} bytes" if size else "huge pages"
        yield kind, float(sum(taken)), float(max(there, default=0))


def _kept_free(replay: Replay, host: str) -> float:
    """The share of a host that rules want to be left free."""
    shares = (rule.share or 0.0 for rule in replay.headroom if matches(host, rule.hosts))
    return max(shares, default=0.0)


def _limit(replay: Replay, move: Move, name: str, used: float, limit: float) -> None:
    slack = (limit - used) / limit if limit > 0 else -1.0
    replay.slack[name] = min(replay.slack.get(name, inf), slack)
    if not isfinite(used) or slack < -TOLERANCE:
        text = f"{name} on {move.target}: {used:.6g} of at most {limit:.6g}"
        replay.fault(move.number, text)


def demand(replay: Replay, vm: str) -> tuple[float, float]:
    """Expected CPU and spread; a VM without a forecast to believe counts half its size or so."""
    if vm not in replay.demands:
        replay.demands[vm] = _demand(replay, vm)
    return replay.demands[vm]


def _demand(replay: Replay, vm: str) -> tuple[float, float]:
    forecast = replay.snapshot.forecasts.get(vm)
    known = forecast and abs(forecast.cpu) < ABSURD_CORES and abs(forecast.spread) < ABSURD_CORES
    if forecast is None or not known:
        size = replay.snapshot.cluster.vms[vm].size
        return size / 2, size / 4
    return max(0.0, forecast.cpu), max(0.0, forecast.spread)
