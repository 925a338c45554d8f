"""What both hosts' facts say against a migration that is about to start.

Only what is known counts: a fact that could not be told (None) is no reason to stay. libvirt finds
most of this out itself, but only after it has begun; and it does not look at a target's memory.
"""

from collections.abc import Iterator

from balancerd.core.model import Method
from balancerd.core.observation import Preflight, Side
from balancerd.core.policies.policy import Policy
from balancerd.core.units import format_size

MAJOR = 1_000_000  # of a version's number


def objection(found: Preflight, method: Method, memory: float, policy: Policy) -> str:
    """The first reason not to start; "" if there is none. `memory`: bytes the VM has in use."""
    return next(_objections(found, method, memory, policy), "")


def _objections(found: Preflight, method: Method, memory: float, policy: Policy) -> Iterator[str]:
    source, target = found.source, found.target
    for side in (source, target):
        if side.error:
            yield f"{side.host} does not answer: {side.error}"
    if source.uuid and source.uuid == target.uuid:
        yield f"{source.host} and {target.host} are one machine by their UUID, {source.uuid}"
    if found.name_free is False:
        yield f"another VM of this name is on {target.host}"
    if found.uuid_free is False:
        yield f"a VM of this UUID and another name is on {target.host}"
    if found.absent_disks:
        yield f"{target.host} has not got {', '.join(found.absent_disks)}"
    if method is Method.COLD:
        return
    yield from _live(found, memory, policy)


def _live(found: Preflight, memory: float, policy: Policy) -> Iterator[str]:
    """What matters to a VM that runs while it moves."""
    source, target = found.source, found.target
    if found.cpu_comparable is False:
        yield f"the CPU of {target.host} lacks what the VM was given"
    if _major(target) < _major(source):
        yield f"QEMU of {target.host} is older than that of {source.host}"
    free = target.memory_free
    if policy.capacity.enforce_memory and free is not None and free < memory:
        yield (
            f"{target.host} has {format_size(free)} of memory free, "
            f"the VM uses {format_size(memory)}"
        )
    if not policy.methods.unlocked and found.image_locks is not True:
        yield "nothing is known to lock its disks (methods.unlocked)"


def _major(side: Side) -> int:
    """The hypervisor's major version; 0 where it was not told."""
    return (side.hypervisor or 0) // MAJOR
