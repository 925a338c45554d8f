"""Readings of hosts and VMs for tests, with everything that does not matter filled in."""

from balancerd.core.model import VM, Host, VMState
from balancerd.core.observation import (
    HostCounters,
    HostReading,
    JobProgress,
    Observation,
    VMCounters,
    VMReading,
)
from balancerd.core.units import GIB

JOB = JobProgress(total=100, processed=10, remaining=90, iteration=1, elapsed=1.0)


def vm_reading(
    name: str,
    *,
    state: VMState = VMState.RUNNING,
    uuid: str | None = None,
    cpu_seconds: float | None = 0.0,
    job: JobProgress | None = None,
    vm: VM | None = None,
) -> VMReading:
    """One VM of 2 vCPUs and 4 GiB on a host."""
    facts = vm or VM(name, 4 * GIB, vcpus=2, uuid=f"uuid-{name}" if uuid is None else uuid)
    counters = VMCounters(cpu_seconds, 0.0, 2 * GIB) if state is VMState.RUNNING else None
    return VMReading(facts, state, counters, job)


def host_reading(
    name: str,
    at: float,
    *vms: VMReading,
    cpu_busy: float = 0.0,
    facts: Host | None = None,
    available: int = 32 * GIB,
) -> HostReading:
    """One host of 16 cores and 64 GiB."""
    facts = facts or Host(name, 16.0, 64 * GIB, cores=16, uuid=f"uuid-{name}")
    return HostReading(name, at, facts, HostCounters(cpu_busy, 64 * GIB, available), vms)


def silent(name: str, at: float, error: str = "no answer") -> HostReading:
    """A host that did not answer."""
    return HostReading(name, at, error=error)


def observed(at: float, *readings: HostReading) -> Observation:
    """All readings together."""
    return Observation(at, readings)
