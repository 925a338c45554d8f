"""Sites with NUMA nodes as one line of text for each host."""

from balancerd.core.model import VM, Cluster, Forecast, Host, Load, NumaNode, Snapshot
from balancerd.core.units import GIB
from tests.sites import NOW


def site(**hosts: str) -> Snapshot:
    """Hosts as text, `h1="8+8: a 4/0, b 8/01"`: cores of each node; VMs, vCPUs and their nodes.

    A VM without nodes floats. There is 1 GiB of memory for each vCPU and 2 for each core; no VM has
    any load.
    """
    machines: dict[str, Host] = {}
    vms: dict[str, VM] = {}
    placement: dict[str, str] = {}
    for name, text in hosts.items():
        sizes, _, guests = text.partition(":")
        cores = [int(size) for size in sizes.split("+")]
        nodes = tuple(NumaNode(float(size), 2 * size * GIB) for size in cores)
        numa = nodes if len(nodes) > 1 else ()
        total = sum(cores)
        machines[name] = Host(name, float(total), 2 * total * GIB, cores=total, numa=numa)
        for guest in filter(None, map(str.strip, guests.split(","))):
            vm, size = guest.split()
            vcpus, _, on = size.partition("/")
            numbers = tuple(int(node) for node in on)
            vms[vm] = VM(vm, int(vcpus) * GIB, vcpus=int(vcpus), numa=numbers)
            placement[vm] = name
    return Snapshot(
        at=NOW,
        cluster=Cluster(machines, vms, placement),
        loads={name: Load(0.0, 0.0, vm.memory) for name, vm in vms.items()},
        host_loads={name: Load(0.0, 0.0, 0) for name in machines},
        forecasts={name: Forecast(0.0, 0.0) for name in vms},
    )
