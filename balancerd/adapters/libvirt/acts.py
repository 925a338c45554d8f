"""What may be done to one copy of a VM, each only where its state, read at that moment, allows it.

The caller has decided by the state-pair table; these are the last look before the leap. (Between
the look and the leap a moment remains: a libvirt call cannot be made to depend on a state.)
"""

import libvirt

from balancerd.adapters.libvirt import mirrors
from balancerd.adapters.libvirt.jobs import read_job
from balancerd.adapters.libvirt.locate import condition_of
from balancerd.adapters.libvirt.order import mebibytes, milliseconds
from balancerd.adapters.libvirt.states import PAUSED, Job, presence
from balancerd.core.observation import Presence


class Refused(Exception):  # noqa: N818  it is no error: the state forbids it
    """The state of the VM is not one in which this may be done."""


KEEPS_TPM_SINCE = 8_009_000  # libvirt 8.9; those before know no such flag, and refuse it

_NOT_ACTIVE = frozenset({Presence.SHUTOFF, Presence.MIGRATED, Presence.FAILED, Presence.CRASHED})
_HALVES = frozenset({Presence.OUTGOING, Presence.INCOMING, Presence.HANDED_OVER})


def resume(domain: libvirt.virDomain) -> None:
    """Let a copy go on that a migration left paused on its source; not one that a user paused."""
    found = presence(condition_of(domain))
    if found is not Presence.OUTGOING:
        raise Refused(f"it is {found.value}")
    domain.resume()


def resume_arrived(domain: libvirt.virDomain) -> None:
    """Let a copy go on that arrived paused. That it did is the record's word: after its restart
    libvirtd shows it as paused by a user. One that is paused for any other reason is left."""
    condition = condition_of(domain)
    if presence(condition) is Presence.RUNNING:
        return
    if (condition.state, condition.reason) != (PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER):
        raise Refused(f"it is {presence(condition).value}")
    domain.resume()


def destroy(domain: libvirt.virDomain) -> None:
    """End a paused half of a migration; never a copy that runs. One that is not active is left."""
    found = presence(condition_of(domain))
    if found in _NOT_ACTIVE:
        return
    if found not in _HALVES:
        raise Refused(f"it is {found.value}")
    domain.destroy()


def undefine(domain: libvirt.virDomain) -> None:
    """Remove the definition of a copy that is not active. Its disks, its NVRAM and its TPM's state
    stay: where those are shared, the copy that runs has them, too.

    libvirt refuses where a saved state, snapshots or checkpoints would be lost; so do we.
    """
    found = presence(condition_of(domain))
    if domain.isActive() or found not in _NOT_ACTIVE:
        raise Refused(f"it is {found.value}")
    connection: libvirt.virConnect = domain.connect()  # type: ignore[no-untyped-call]
    domain.undefineFlags(keeping(connection.getLibVersion()))


def keeping(version: int) -> int:
    """The flags by which a libvirtd of this version keeps what belongs to a VM."""
    tpm = libvirt.VIR_DOMAIN_UNDEFINE_KEEP_TPM if version >= KEEPS_TPM_SINCE else 0
    return libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM | tpm


def set_bandwidth(domain: libvirt.virDomain, bandwidth: int) -> None:
    """Change the cap of its migration, in bytes per second; of its disks' copies, too."""
    _need_transfer(domain)
    domain.migrateSetMaxSpeed(mebibytes(bandwidth))
    mirrors.share_out(domain, bandwidth)


def set_downtime(domain: libvirt.virDomain, downtime: float) -> None:
    """Change the longest pause its migration may end with, in seconds."""
    _need_transfer(domain)
    domain.migrateSetMaxDowntime(milliseconds(downtime))


def switch_to_post_copy(domain: libvirt.virDomain) -> None:
    """Let it run on the target from now on; libvirt refuses where that was not asked for before."""
    _need_transfer(domain)
    domain.migrateStartPostCopy()


def _need_transfer(domain: libvirt.virDomain) -> None:
    """Before memory flows these calls may wait until the job has ended."""
    job, progress = read_job(domain)
    if job is not Job.OUTGOING or progress is None or not progress.total:
        raise Refused("no migration of it transfers memory now")


def abort(domain: libvirt.virDomain) -> None:
    """Ask for the end of its migration; a backup or a dump is somebody else's."""
    job = read_job(domain)[0]
    if job is not Job.OUTGOING:
        raise Refused(f"its job is: {job.value}")
    domain.abortJob()
