"""The lab from the command line: python -m tests.lab.rig up|down|status|..."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from .guests import Disk, GuestSpec, Load
from .hosts import Host
from .layout import NETWORKS, HostSpec, LabError
from .rig import Rig, why_unavailable

Arguments = argparse.Namespace


def up(arguments: Arguments) -> None:
    spec = HostSpec(cpus=arguments.cpus, memory_mib=arguments.memory)
    rig = Rig(arguments.hosts, spec, arguments.instance)
    if rig.layout.state.exists() and not arguments.anew:
        rig = Rig.attach(arguments.instance)
        print("The lab is already up.")
    else:
        rig.up()
    print_hosts(rig)
    print("Guest to start with: python -m tests.lab.rig start web h1 --cpu 40")


def down(arguments: Arguments) -> None:
    Rig(instance=arguments.instance).down()


def status(arguments: Arguments) -> None:
    rig = Rig.attach(arguments.instance)
    print_hosts(rig)


def print_hosts(rig: Rig) -> None:
    for host in rig.hosts:
        print(f"{host.name}  {host.uri}  {host.migration_uri}  {condition(host)}")


def condition(host: Host) -> str:
    """What a host is doing, as far as it answers."""
    if not host.is_on():
        return "off"
    if host.libvirtd_pid() is None:
        return "on, no libvirtd"
    try:
        guests = host.guests()
    except LabError:
        return "on, libvirtd does not answer"
    words = [
        f"{name}{'' if state == 1 else ' (not running)'}" for name, (state, _) in guests.items()
    ]
    return (
        f"on, {host.spec.cpus} CPU, {host.spec.memory_mib} MiB: {', '.join(words) or 'no guests'}"
    )


def shell(arguments: Arguments) -> None:
    host = Rig.attach(arguments.instance).host(arguments.host)
    command = host.entering(arguments.command or ["/bin/busybox", "sh"])
    os.execvp(command[0], command)


def power(arguments: Arguments) -> None:
    host = Rig.attach(arguments.instance).host(arguments.host)
    if arguments.what == "on":
        host.power_on()
    elif arguments.what == "off":
        host.power_off()
    else:
        print("on" if host.is_on() else "off")


def libvirtd(arguments: Arguments) -> None:
    host = Rig.attach(arguments.instance).host(arguments.host)
    acts: dict[str, Callable[[], None]] = {
        "kill": host.kill_libvirtd,
        "start": host.start_libvirtd,
        "freeze": host.freeze_libvirtd,
        "thaw": host.thaw_libvirtd,
    }
    acts[arguments.what]()


def cable(arguments: Arguments) -> None:
    host = Rig.attach(arguments.instance).host(arguments.host)
    if arguments.what == "cut":
        host.cut(arguments.network)
    else:
        host.mend(arguments.network)


def start(arguments: Arguments) -> None:
    rig = Rig.attach(arguments.instance)
    disk = Disk(place=arguments.disk) if arguments.disk else None
    spec = GuestSpec(arguments.memory, arguments.vcpus, load_of(arguments), disk)
    rig.start(arguments.guest, arguments.host, spec, wait=not arguments.no_wait)


def load(arguments: Arguments) -> None:
    Rig.attach(arguments.instance).guest(arguments.guest).set_load(load_of(arguments))


def load_of(arguments: Arguments) -> Load:
    return Load(
        cpu_percent=arguments.cpu,
        dirty_mb_per_s=arguments.dirty,
        working_set_mib=arguments.working_set,
    )


def counter(arguments: Arguments) -> None:
    guest = Rig.attach(arguments.instance).guest(arguments.guest)
    seen = guest.counter()
    print(f"{guest.name}: on {', '.join(guest.where()) or 'no host'}; {seen.boots} boots, ", end="")
    print(f"{seen.beats} beats, {seen.holes} missing, {seen.doubles} double")


def migrate(arguments: Arguments) -> None:
    moved = Rig.attach(arguments.instance).guest(arguments.guest).migrate(arguments.host)
    print(f"{moved.seconds:.1f} s, downtime {moved.downtime_ms} ms, ", end="")
    print(f"{moved.memory_bytes / 1e6:.0f} MB in {moved.iterations} rounds")


def remove(arguments: Arguments) -> None:
    Rig.attach(arguments.instance).guest(arguments.guest).remove()


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m tests.lab.rig",
        description="Three real libvirt hosts with real QEMU guests on this machine.",
    )
    top.add_argument("--instance", type=int, default=0, help="number of the lab (default 0)")
    verbs = top.add_subparsers(required=True, metavar="VERB")

    def verb(act: Callable[[Arguments], None], text: str, *words: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(act.__name__, help=text, description=text)
        added.set_defaults(act=act)
        for word in words:
            added.add_argument(word)
        return added

    added = verb(up, "bring the lab up")
    added.add_argument("--hosts", type=int, default=3, metavar="N")
    added.add_argument("--cpus", type=int, default=1, metavar="N", help="CPUs of each host")
    added.add_argument("--memory", type=int, default=2048, metavar="MIB", help="of each host")
    added.add_argument("--anew", action="store_true", help="even if one is up")
    verb(down, "remove everything")
    verb(status, "hosts and guests")
    verb(shell, "a shell, or a command, inside a host", "host").add_argument(
        "command", nargs=argparse.REMAINDER
    )
    verb(power, "power of a host", "host").add_argument("what", choices=["on", "off", "state"])
    verb(libvirtd, "break or mend a host's libvirtd", "host").add_argument(
        "what", choices=["kill", "start", "freeze", "thaw"]
    )
    added = verb(cable, "cut or mend a host's link", "host")
    added.add_argument("what", choices=["cut", "mend"])
    added.add_argument("network", choices=NETWORKS)
    starting = verb(start, "define and start a guest", "guest", "host")
    starting.add_argument("--memory", type=int, default=128, metavar="MIB")
    starting.add_argument("--vcpus", type=int, default=1, metavar="N")
    starting.add_argument("--disk", choices=["shared", "local"])
    starting.add_argument("--no-wait", action="store_true", help="do not wait for its first beat")
    for added in (starting, verb(load, "set the load of a guest", "guest")):
        added.add_argument("--cpu", type=int, default=0, metavar="PERCENT", help="of each vCPU")
        added.add_argument("--dirty", type=int, default=0, metavar="MB/S", help="memory written")
        added.add_argument("--working-set", type=int, metavar="MIB", help="how much is written to")
    verb(counter, "where a guest is and what its counter proves", "guest")
    verb(migrate, "move a guest by hand", "guest", "host")
    verb(remove, "destroy and undefine a guest", "guest")
    return top


def main() -> int:
    arguments = parser().parse_args()
    try:
        if arguments.act not in (up, down) and (why := why_unavailable()):
            raise LabError(why)
        arguments.act(arguments)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except Exception as error:  # noqa: BLE001  a sentence, whatever libvirt raises
        print(f"lab: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
