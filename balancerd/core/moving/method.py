"""How a VM can be moved: the mildest method that comes to an end, as far as the policy lets it.

Pre-copy first: nobody notices it. Where the VM writes faster than that can copy, post-copy if both
the policy and the VM's own tag allow it (a failure half-way loses the VM), else auto-converge,
which slows it down. Local disks are copied along only where the policy says so, in full unless
policy and tag say that their base images are on the target already; the memory has to be copied by
plain pre-copy then.
"""

from dataclasses import dataclass, replace

from balancerd.core.model import VM, WITH_DISKS, Disk, ExclusionKind, Load, Method
from balancerd.core.moving.copying import Copy, auto_converge, post_copy, pre_copy
from balancerd.core.plan import Refusal
from balancerd.core.policies.limits import Limits
from balancerd.core.policies.policy import Policy
from balancerd.core.policies.tags import OVERLAY, POST_COPY, says_yes
from balancerd.core.units import MIB

# Where nobody has measured it, a VM is taken to write a tenth as fast as can be copied.
UNSAMPLED = 0.1
PATIENCE = 4.0  # times a VM's memory that pre-copy may send before another method is better


@dataclass(frozen=True, slots=True)
class Way:
    """A method, and what it takes by the model alone."""

    method: Method
    copy: Copy


def way_of(vm: VM, load: Load | None, policy: Policy, rate: float) -> Way | Refusal:
    """The way to move a VM at a rate of so many bytes per second, or why there is none."""
    memory, dirty = memory_in_use(vm, load), dirty_rate(load, rate)
    pause, allowed = policy.limits.downtime, policy.methods
    plain = pre_copy(memory, dirty, rate, pause)
    if local := [disk for disk in vm.disks if not disk.shared]:
        return _with_disks(vm, local, policy, plain, rate, dirty)
    if plain.ends and plain.bytes <= PATIENCE * max(memory, 1.0):
        return Way(Method.PRE_COPY, plain)
    if allowed.post_copy and says_yes(vm, POST_COPY):
        return Way(Method.POST_COPY, post_copy(memory, dirty, rate))
    slowed = auto_converge(memory, dirty, rate, pause)
    if allowed.auto_converge and slowed.ends:
        return Way(Method.AUTO_CONVERGE, slowed)
    return Way(Method.PRE_COPY, plain) if plain.ends else _too_fast(vm, dirty, rate)


def _with_disks(
    vm: VM, local: list[Disk], policy: Policy, memory: Copy, rate: float, dirty: float
) -> Way | Refusal:
    """The disks first, then the memory."""
    for disks, remedy in (
        ([disk for disk in local if not disk.file], "put it on storage that all hosts reach"),
        (local if all(disk.read_only for disk in local) else [], "eject it"),
    ):
        if disks:  # which libvirt would not copy, or not to where it may be written
            return _local(vm, disks, remedy)
    based = any(disk.based for disk in local)
    if based and policy.methods.overlay and says_yes(vm, OVERLAY):
        method, size = Method.OVERLAY, sum(disk.allocated or disk.size for disk in local)
    elif policy.methods.storage:
        method, size = Method.STORAGE, sum(_in_full(disk) for disk in local)
    else:
        return _local(vm, local, "set methods.storage")
    if not memory.ends:
        return _too_fast(vm, dirty, rate)
    longer = replace(memory, seconds=memory.seconds + size / rate, bytes=memory.bytes + size)
    return Way(method, longer)


def _local(vm: VM, disks: list[Disk], remedy: str) -> Refusal:
    paths = ", ".join(disk.source for disk in disks)
    return Refusal(vm.name, "", ExclusionKind.LOCAL_STORAGE, paths, remedy)


def _in_full(disk: Disk) -> int:
    """Bytes to copy of a disk and all that it lies on. What was never written is not sent; how much
    that is below the disk's own image, nobody tells."""
    return disk.size if disk.based else disk.allocated or disk.size


def _too_fast(vm: VM, dirty: float, rate: float) -> Refusal:
    return Refusal(
        vm.name,
        "",
        "method",
        f"it writes {dirty / MIB:.0f} MiB/s, of which no allowed method can copy {rate / MIB:.0f}",
        "allow more in [methods], or raise limits.bandwidth",
    )


def weight(method: Method, limits: Limits) -> int:
    """As how many migrations one counts where they are limited."""
    return limits.storage_weight if method in WITH_DISKS else 1


def memory_in_use(vm: VM, load: Load | None) -> float:
    """Bytes that have to be sent once: what is resident, or all where that is not known."""
    size = max(0, vm.memory)
    used = min(load.memory, size) if load and load.memory > 0 else size
    # no host tells how much of huge pages is in use
    return float(used + vm.all_memory - size if vm.huge_pages else used)


def dirty_rate(load: Load | None, rate: float) -> float:
    """Bytes of its memory that a VM writes per second, as last sampled."""
    if load is None or load.dirty_rate is None:
        return UNSAMPLED * rate
    return max(0.0, load.dirty_rate)
