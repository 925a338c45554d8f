"""The lab's two networks: management (10.77.N.0/24) and migration (10.78.N.0/24).

Both are bridges in a network namespace of their own, the switch. Not in the root namespace: there,
a machine with a firewall or Docker may drop bridged packets. The root namespace has one link to the
management bridge, so that a balancerd started on this machine reaches the hosts.
"""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path

from .cgroups import Group, Trees
from .layout import NETWORKS, LabError, Layout
from .shell import run, succeeds
from .wire import Wire


def _port(index: int, network: str) -> str:
    """The switch's end of a host's cable."""
    return f"h{index}-{network[:4]}"


def switch_group(layout: Layout, trees: Trees) -> Group:
    return Group(trees, f"{layout.label}/switch")


def _switch_pid(layout: Layout) -> int:
    try:
        return int((layout.run / "switch").read_text())
    except (FileNotFoundError, ValueError):
        raise LabError("the lab is not up") from None


def _in_network_of(pid: int) -> list[str]:
    return ["nsenter", f"--net=/proc/{pid}/ns/net"]


def _batch(pid: int, commands: list[str]) -> None:
    run([*_in_network_of(pid), "ip", "-batch", "-"], "\n".join(commands) + "\n", name="ip")


def create_switch(layout: Layout, trees: Trees) -> None:
    """A process that does nothing keeps the switch's namespace. (`ip netns` would leave a mount
    behind, and fails in a chroot.)"""
    group = switch_group(layout, trees)
    group.create()
    process = subprocess.Popen(
        group.joining(["unshare", "--net", "/bin/sh", "-c", "echo; exec sleep infinity"]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdout is not None
    if not process.stdout.readline():
        raise LabError("the lab's switch does not start")
    (layout.run / "switch").write_text(str(process.pid))
    bridges = [f"link add {network} type bridge" for network in NETWORKS]
    _batch(process.pid, [*bridges, *(f"link set {network} up" for network in NETWORKS)])
    own, peer = layout.link, "control"
    run(["ip", "link", "add", own, "type", "veth", "peer", peer, "netns", str(process.pid)])
    run(["ip", "address", "add", f"{layout.address('mgmt', 0)}/24", "dev", own])
    run(["ip", "link", "set", own, "up"])
    _batch(process.pid, [f"link set {peer} master mgmt", f"link set {peer} up"])


def link_exists(layout: Layout) -> bool:
    return Path("/sys/class/net", layout.link).exists()


def remove_link(layout: Layout) -> None:
    """The rest of the switch goes with its process."""
    succeeds(["ip", "link", "delete", layout.link])


def switch_exists(layout: Layout, trees: Trees) -> bool:
    with suppress(LabError):
        return _switch_pid(layout) in switch_group(layout, trees).pids()
    return False


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
    _batch(_switch_pid(layout), outside)
    _batch(pid, inside)


def unplug(layout: Layout, index: int) -> None:
    with suppress(LabError):
        switch = _in_network_of(_switch_pid(layout))
        for network in NETWORKS:
            succeeds([*switch, "ip", "link", "delete", _port(index, network)])


def set_cable(layout: Layout, index: int, network: str, *, connected: bool) -> None:
    if network not in NETWORKS:
        raise LabError(f"no network {network!r}: there are {' and '.join(NETWORKS)}")
    state = "up" if connected else "down"
    _batch(_switch_pid(layout), [f"link set {_port(index, network)} {state}"])


def listen(layout: Layout, index: int, network: str, words: bytes) -> Wire:
    """Listens on a host's cable for certain words."""
    return Wire(_in_network_of(_switch_pid(layout)), _port(index, network), words)


def limit_speed(
    layout: Layout, index: int, pid: int, network: str, megabit_per_s: float | None
) -> None:
    """Both directions of a host's link, or no limit."""
    for end, device in ((_switch_pid(layout), _port(index, network)), (pid, network)):
        command = [*_in_network_of(end), "tc", "qdisc"]
        succeeds([*command, "delete", "dev", device, "root"])
        if megabit_per_s is not None:
            # Segments of up to 64 KiB leave the host as one packet: a smaller burst drops them all.
            rate = f"rate {int(megabit_per_s * 1000)}kbit burst 256kb latency 200ms"
            run([*command, "add", "dev", device, "root", "tbf", *rate.split()])
