"""Guards in what both hosts say of themselves before a start."""

from tests.mutants.mutant import Mutant

FILE, TEST = "core/executing/preflight.py", "tests/unit/test_preflight.py"


def _fact(name: str, condition: str, protects: str) -> Mutant:
    """One of the things that are looked at is not."""
    return Mutant(name, FILE, f"if {condition}:\n", "if False:\n", TEST, protects=protects)


FACTS = (
    _fact(
        "a host that cannot be asked",
        "side.error",
        "nothing starts between hosts of which one does not answer",
    ),
    _fact(
        "two names of one machine",
        "source.uuid and source.uuid == target.uuid",
        "no VM is migrated to the machine that it is on",
    ),
    _fact(
        "a name that is taken",
        "found.name_free is False",
        "no VM goes where another one has its name",
    ),
    _fact(
        "a UUID that is taken",
        "found.uuid_free is False",
        "no VM goes where it is known under another name",
    ),
    _fact(
        "disks that the target has not got",
        "found.absent_disks",
        "no VM goes where its disks are not",
    ),
    _fact(
        "a CPU that lacks something",
        "found.cpu_comparable is False",
        "no VM goes where its CPU cannot be had",
    ),
    _fact(
        "an older QEMU or libvirt",
        "_major(there) < _major(here)",
        "no VM goes where it might not be understood, nor come back from",
    ),
    _fact(
        "huge pages at the target",
        "pages.free < pages.needed",
        "no VM goes where its huge pages are taken",
    ),
    _fact(
        "memory at the target",
        "policy.capacity.enforce_memory and free is not None and free < memory",
        "no VM goes where the kernel would kill one for want of memory",
    ),
    _fact(
        "no planned post-copy without locks",
        "method is Method.POST_COPY",
        "two copies never write to one disk while memory follows",
    ),
    _fact(
        "what nobody defined is not handed over",
        "found.persistent is False",
        "of a VM whose source ended it is known how it ended",
    ),
)
