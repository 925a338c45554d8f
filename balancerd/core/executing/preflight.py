"""What both hosts' facts say against a migration that is about to start.

Only what is known counts: a fact that could not be told (None) is no reason to stay. libvirt finds
most of this out itself, but only after it has begun; and it does not look at a target's memory.
"""

from collections.abc import Iterator
from math import nan

from balancerd.core.model import Method
from balancerd.core.observation import Base, Overlays, Preflight
from balancerd.core.policies.choices import Unlocked
from balancerd.core.policies.policy import Policy
from balancerd.core.policies.tables import Methods
from balancerd.core.units import format_duration, format_size

MAJOR = 1_000_000  # of a version's number
_SAME = {
    "format": "is {1} on {0}, but {3} on {2}",
    "capacity": "holds a disk of {1} bytes on {0}, but of {3} on {2}",
    "length": "has {1} bytes on {0}, but {3} on {2}",
    "backing": "lies on {1!r} on {0}, but on {3!r} on {2}",
    "samples": "holds other data on {0} than on {2}",
    "changed": "was not changed last at the same time on {0} as on {2}: copy it with its time",
}
NO_LOCK = "nothing is known to lock its disks"


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
    yield from _copies(found)
    if method is Method.COLD:
        return
    if method is Method.OVERLAY:
        yield from _overlays(found.overlays, source.host, target.host)
    yield from _live(found, method, memory, policy)


def _live(found: Preflight, method: Method, memory: float, policy: Policy) -> Iterator[str]:
    """What matters to a VM that runs while it moves."""
    source, target = found.source, found.target
    if found.cpu_comparable is False:
        yield f"the CPU of {target.host} lacks what the VM was given"
    for program, here, there in (
        ("libvirt", source.libvirt, target.libvirt),
        ("QEMU", source.hypervisor, target.hypervisor),
    ):
        if _major(there) < _major(here):
            yield f"{program} of {target.host} is older than that of {source.host}"
    if found.skew is not None and abs(found.skew) > policy.limits.clock_skew:
        way = "ahead of" if found.skew > 0 else "behind"
        yield (
            f"the clock of {target.host} is {format_duration(round(abs(found.skew)))} {way} "
            f"that of {source.host} (limits.clock_skew)"
        )
    yield from _pages(found)
    free, memory = target.memory_free, memory - sum(pages.needed for pages in found.pages)
    if policy.capacity.enforce_memory and free is not None and free < memory:
        yield (
            f"{target.host} has {format_size(free)} of memory free, "
            f"the VM uses {format_size(memory)}"
        )
    if found.image_locks is not True and policy.methods.unlocked is Unlocked.REFUSE:
        yield f"{NO_LOCK} (methods.unlocked)"
    if hands_over(found, method, policy.methods):
        yield from _handing_over(found, method)


def _copies(found: Preflight) -> Iterator[str]:
    """What would be lost, or not be there, though libvirt says nothing: it takes the source's local
    device for the target's of that name, and writes a disk over whatever file has its path."""
    here, there = found.source.host, found.target.host
    for path in found.stranded:
        yield f"only {here} has {path}, which it would leave there"
    for path in found.unmade:
        yield f"{there} has no storage pool in which {path} could be made"
    for path in found.occupied:
        yield f"{there} has a file {path} already, of which nobody knows what it holds: remove it"


def _overlays(found: Overlays | None, here: str, there: str) -> Iterator[str]:
    """Here want of knowledge does speak against the start: libvirt compares nothing of two bases,
    and on one that differs the disk is ruined, without a word from anybody."""
    if found is None:
        yield f"{here} and {there} do not tell which images its disks lie on"
        return
    for writer in found.writers:
        yield f"an image that its disks lie on is written to by {writer}"
    for base in found.bases:
        yield from _differences(base, here, there)


def _differences(base: Base, here: str, there: str) -> Iterator[str]:
    """What shows that a base is not the same on both hosts. Its time of change has to be equal, as
    for rsync: whatever was written to either of them since it was copied shows in that."""
    if base.here is None or base.there is None:
        silent = here if base.here is None else there
        yield f"{silent} tells nothing of {base.path}, which its disk lies on"
        return
    for name, words in _SAME.items():
        mine, other = getattr(base.here, name), getattr(base.there, name)
        if mine != other:
            yield f"{base.path}, which its disk lies on, {words.format(there, other, here, mine)}"


def _pages(found: Preflight) -> Iterator[str]:
    for pages in found.pages:
        if pages.free < pages.needed:
            kind = f"huge pages of {format_size(pages.size)}" if pages.size else "huge pages"
            yield (
                f"{found.target.host} has {format_size(pages.free)} of {kind} free, "
                f"the VM needs {format_size(pages.needed)}"
            )


def hands_over(found: Preflight, method: Method, rules: Methods) -> bool:
    """Whether the VM is to arrive paused, and to go on only once its source is seen to be gone.

    Where nothing locks its disks, a source that does not hear of the target's success in time lets
    the VM go on, while the target starts it: both write. Paused, the target waits for us instead.
    """
    wanted = rules.unlocked is Unlocked.HAND_OVER and method is not Method.COLD
    return wanted and found.image_locks is not True


def _handing_over(found: Preflight, method: Method) -> Iterator[str]:
    if method is Method.POST_COPY:
        yield f"{NO_LOCK}, and in post-copy it cannot be handed over paused"
    if found.persistent is False:
        # Once gone, it could have moved as well as died on its source after it ran on there.
        yield f"{NO_LOCK}, and what is not defined on its source cannot be handed over paused"


def _major(version: int | None) -> float:
    """The major version. One that was not told is neither older nor newer than another."""
    return nan if version is None else version // MAJOR
