"""One VM on one host, asked now."""

from typing import Any

import libvirt

from balancerd.adapters.libvirt.errors import code
from balancerd.adapters.libvirt.jobs import arrived_by_migration, read_job
from balancerd.adapters.libvirt.states import PAUSED, Condition, Job, presence
from balancerd.core.observation import Presence


def find(connection: libvirt.virConnect, vm: str, uuid: str) -> libvirt.virDomain | None:
    """The VM's domain here, by UUID where one is known: a namesake is somebody else."""
    try:
        if uuid:
            return connection.lookupByUUIDString(uuid)
        return connection.lookupByName(vm)
    except libvirt.libvirtError as error:
        if code(error) == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise


def condition_of(domain: libvirt.virDomain) -> Condition:
    """State, reason and job, read anew. libvirtError when it cannot be told.

    The job is asked for first: in the moment a migration ends, "no job" is never combined with a
    state from before the end.
    """
    job = read_job(domain)[0]
    answer: Any = domain.state()  # annotated as text, but a list of two numbers
    state, reason = answer
    if job is Job.NONE and state == PAUSED and arrived_by_migration(domain):
        job = Job.ARRIVED
    return Condition(state, reason, job)


def presence_of(connection: libvirt.virConnect, vm: str, uuid: str) -> Presence:
    """What this host says of the VM. libvirtError when it does not answer."""
    domain = find(connection, vm, uuid)
    if domain is None:
        return Presence.ABSENT
    try:
        return presence(condition_of(domain))
    except libvirt.libvirtError as error:
        if code(error) == libvirt.VIR_ERR_NO_DOMAIN:  # it went away between two calls
            return Presence.ABSENT
        raise
