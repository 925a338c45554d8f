"""The lab's two networks: management (10.77.N.0/24) and migration (10.78.N.0/24).

Both are bridges in a network namespace of their own, the switch. Not in the root namespace: there,
a machine with a firewall or Docker may drop bridged packets. The root namespace has one link to the
management bridge, so that a balancerd started on this machine reaches the hosts.
"""

from __future__ import annotations

from .layout import NETWORKS, LabError, Layout
from .shell import run, succeeds


def _port(index: int, network: str) -> str:
    """The switch's end of a host's cable."""
    return f"h{index}-{network[:4]}"


def _batch(layout: Layout, commands: list[str]) -> None:
    run(["ip", "-n", layout.netns, "-batch", "-"], "\n".join(commands) + "\n")


def create_switch(layout: Layout) -> None:
    run(["ip", "netns", "add", layout.netns])
    run(
        ["ip", "-batch", "-"],
        f"link add {layout.netns} type veth peer name control netns {layout.netns}\n"
        f"address add {layout.address('mgmt', 0)}/24 dev {layout.netns}\n"
        f"link set {layout.netns} up\n",
    )
    bridges = [f"link add {network} type bridge" for network in NETWORKS]
    _batch(
        layout,
        [
            *bridges,
            "link set control master mgmt",
            *[f"link set {link} up" for link in (*NETWORKS, "control")],
        ],
    )


def remove_switch(layout: Layout) -> None:
    succeeds(["ip", "link", "delete", layout.netns])
    succeeds(["ip", "netns", "delete", layout.netns])


def switch_exists(layout: Layout) -> bool:
    return succeeds(["ip", "-n", layout.netns, "link", "show", "mgmt"])


def plug(layout: Layout, index: int, pid: int) -> None:
    """Gives a host, known by its first process, its two network cards."""
    outside, inside = [], ["link set lo up"]
    for network in NETWORKS:
        port = _port(index, network)
        mac, address = layout.mac(network, index), layout.address(network, index)
        outside += [
            f"link add {port} type veth peer name {network} address {mac} netns {pid}",
            f"link set {port} master {network}",
            f"link set {port} up",
        ]
        inside += [f"address add {address}/24 dev {network}", f"link set {network} up"]
    _batch(layout, outside)
    run(
        ["nsenter", f"--net=/proc/{pid}/ns/net", "ip", "-batch", "-"],
        "\n".join(inside) + "\n",
    )


def unplug(layout: Layout, index: int) -> None:
    for network in NETWORKS:
        succeeds(["ip", "-n", layout.netns, "link", "delete", _port(index, network)])


def set_cable(layout: Layout, index: int, network: str, *, connected: bool) -> None:
    if network not in NETWORKS:
        raise LabError(f"no network {network!r}: there are {' and '.join(NETWORKS)}")
    _batch(layout, [f"link set {_port(index, network)} {'up' if connected else 'down'}"])


def limit_speed(
    layout: Layout, index: int, pid: int, network: str, megabit_per_s: float | None
) -> None:
    """Both directions of a host's link, or no limit."""
    ends = (
        (["tc", "-n", layout.netns], _port(index, network)),
        (["nsenter", f"--net=/proc/{pid}/ns/net", "tc"], network),
    )
    for command, device in ends:
        succeeds([*command, "qdisc", "delete", "dev", device, "root"])
        if megabit_per_s is not None:
            # Segments of up to 64 KiB leave the host as one packet: a smaller burst drops them all.
            rate = f"rate {int(megabit_per_s * 1000)}kbit burst 256kb latency 200ms"
            run([*command, "qdisc", "add", "dev", device, "root", "tbf", *rate.split()])
