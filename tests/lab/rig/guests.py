"""A guest of the lab: a real QEMU machine that counts, and whose load is set from outside."""

from __future__ import annotations

import json
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .console import Console, Counter
from .hosts import Host
from .layout import LabError

if TYPE_CHECKING:
    from .rig import Rig

FIRST, SECOND = "vda", "vdb"
BOOT_SECONDS = 150  # 4 s on an idle machine; emulated CPUs are slow on a busy one
AGENT_SECONDS = 10  # a libvirtd just started, or a guest just arrived, has no agent for a moment

# Known beforehand, how long a loop takes is not measured (`lpj`): nothing in a guest depends on it.
KERNEL_OPTIONS = (
    "console=ttyS0 quiet panic=1 nokaslr mitigations=off 8250.nr_uarts=1 "
    "cryptomgr.notests no_timer_check rcupdate.rcu_expedited=1 ipv6.disable=1 "
    "lpj=4000000"
)

DOMAIN = """\
<domain type="qemu">
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  {metadata}
  <memory unit="MiB">{memory_mib}</memory>
  <vcpu>{vcpus}</vcpu>
  <os>
    <type arch="x86_64" machine="{machine}">hvm</type>
    <kernel>/lab/guest/kernel</kernel>
    <initrd>/lab/guest/initrd</initrd>
    <cmdline>{options}</cmdline>
  </os>
  <features><acpi/><apic/><tcg><tb-cache unit="MiB">32</tb-cache></tcg></features>
  <cpu mode="custom" match="exact" check="none"><model fallback="forbid">qemu64</model></cpu>
  <clock offset="utc"><timer name="hpet" present="no"/></clock>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    {disk}
    <controller type="usb" model="none"/>
    <serial type="file">
      <source path="/lab/shared/console/{name}.log" append="on"/><target port="0"/>
    </serial>
    <channel type="unix"><target type="virtio" name="org.qemu.guest_agent.0"/></channel>
    <memballoon model="virtio"><stats period="1"/></memballoon>
  </devices>
</domain>
"""

DISK = """\
<disk type="file" device="disk">
      <driver name="qemu" type="{format}" cache="none"/>
      <source file="{path}"/><target dev="{device}" bus="virtio"/>{shareable}
    </disk>"""


@dataclass(frozen=True)
class Load:
    """What a guest does. CPU load is a percentage of one vCPU, in each of `threads` threads."""

    cpu_percent: int = 0
    threads: int | None = None  # as many as vCPUs
    dirty_mb_per_s: int = 0
    working_set_mib: int | None = None  # 16; at most memory - 40
    tick_ms: int | None = None  # 50

    def numbers(self) -> dict[str, int]:
        values = {
            "cpu": self.cpu_percent,
            "threads": self.threads,
            "dirty": self.dirty_mb_per_s,
            "ws": self.working_set_mib,
            "tick": self.tick_ms,
        }
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class Disk:
    """A guest's disk, on storage that all hosts share or on the one host's own."""

    place: str = "shared"  # or "local"
    size_mib: int = 64
    format: str = "qcow2"  # or "raw"
    allocated: bool = False  # every block written, so that moving it takes its time
    shareable: bool = False  # several guests may write to it, so that QEMU does not lock it; raw
    base: str = ""  # another image in the same place, which it lies on; qcow2

    def path_inside(self, guest: str, device: str = FIRST) -> str:
        part = "" if device == FIRST else f".{device}"
        return f"/lab/{self.place}/{guest}{part}.{self.format}"

    def xml(self, guest: str, device: str = FIRST) -> str:
        return DISK.format(
            path=self.path_inside(guest, device),
            device=device,
            format=self.format,
            shareable="<shareable/>" if self.shareable else "",
        )


@dataclass(frozen=True)
class GuestSpec:
    memory_mib: int = 128
    vcpus: int = 1
    load: Load = Load()
    disk: Disk | None = None
    second: Disk | None = None  # which the guest does not use
    metadata: str = ""  # elements that go into <metadata>
    uuid: str | None = None
    machine: str = "pc"

    def xml(self, name: str) -> str:
        options = [f"lab.{key}={value}" for key, value in self.load.numbers().items()]
        return DOMAIN.format(
            name=name,
            uuid=self.uuid or uuid.uuid4(),
            memory_mib=self.memory_mib,
            vcpus=self.vcpus,
            machine=self.machine,
            metadata=f"<metadata>{self.metadata}</metadata>" if self.metadata else "",
            options=" ".join([KERNEL_OPTIONS, *options]),
            disk="\n    ".join(disk.xml(name, device) for device, disk in self.disks()),
        )

    def disks(self) -> list[tuple[str, Disk]]:
        """Its disks, by the names that the guest knows them by."""
        both = ((FIRST, self.disk), (SECOND, self.second))
        return [(device, disk) for device, disk in both if disk is not None]


@dataclass(frozen=True)
class Moved:
    """What libvirt tells about a finished migration."""

    seconds: float
    downtime_ms: int
    memory_bytes: int
    iterations: int


class Guest:
    """A guest by its name. Where it runs is asked anew each time."""

    def __init__(self, rig: Rig, name: str) -> None:
        self.rig = rig
        self.name = name

    def __repr__(self) -> str:
        return f"<Guest {self.name}>"

    # ---- where ----

    def where(self) -> list[str]:
        """Names of the hosts on which it is active, by asking every host that is on."""
        return self.rig.where(self.name)

    def host(self) -> Host:
        """The one host it is active on."""
        names = self.where()
        if len(names) != 1:
            raise LabError(f"{self.name} runs on {' and '.join(names) or 'no host'}, not on one")
        return self.rig.host(names[0])

    def states(self) -> dict[str, tuple[int, int]]:
        """Host -> libvirt's state and reason, for every host that knows the guest."""
        return self.rig.states(self.name)

    # ---- life ----

    def start(self, host: str, *, wait: bool = True) -> None:
        """Starts the guest, which must be defined on the host."""
        boots = self.counter().boots
        self.rig.host(host).ask(lambda c: c.lookupByName(self.name).create(), timeout=30)
        if wait:
            self.wait_ready(boots + 1)

    def wait_ready(self, boots: int = 1, seconds: float = BOOT_SECONDS) -> None:
        """Waits until it has started `boots` times, as its console shows, and answers."""
        deadline = time.monotonic() + seconds
        while self.counter().boots < boots:
            if time.monotonic() > deadline:
                raise LabError(
                    f"{self.name} did not start within {seconds:g} s; its hosts say"
                    f" {self.states()}, its console {self.console.tail()!r}"
                )
            time.sleep(0.05)
        self.inner()

    def shut_down(self) -> None:
        """Asks the guest to power off, as `virsh shutdown` does."""
        self.host().ask(lambda c: c.lookupByName(self.name).shutdown())

    def stop(self) -> None:
        """Destroys it wherever it runs; the definitions stay."""
        for name in self.where():
            self.rig.host(name).ask(lambda c: c.lookupByName(self.name).destroy(), timeout=30)

    def kill_qemu(self, host: str | None = None) -> None:
        """kill -9 of its QEMU, on `host` or wherever it runs."""
        names = [host] if host else self.where()
        for name in names:
            self.rig.host(name).kill_qemu(self.name)

    def remove(self) -> None:
        """Destroys and undefines it on every host; disks and console go too."""
        for host in self.rig.hosts_on():
            host.ask(self._drop, timeout=30)
        self.rig.forget(self.name)

    def _drop(self, connection: Any) -> None:
        import libvirt

        with suppress(libvirt.libvirtError):
            domain = connection.lookupByName(self.name)
            if domain.isActive():
                domain.destroy()
            if domain.isPersistent():
                domain.undefine()

    # ---- load and counters ----

    def _agent(self, request: dict[str, Any]) -> dict[str, Any]:
        import libvirt
        import libvirt_qemu

        def ask(connection: Any) -> str:
            domain = connection.lookupByName(self.name)
            return str(libvirt_qemu.qemuAgentCommand(domain, json.dumps(request), 10, 0))

        deadline = time.monotonic() + AGENT_SECONDS
        while True:
            try:
                answer: dict[str, Any] = json.loads(self.host().ask(ask, timeout=15))["return"]
            except libvirt.libvirtError as error:
                absent = error.get_error_code() == libvirt.VIR_ERR_AGENT_UNRESPONSIVE
                if not absent or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return answer

    def set_load(self, load: Load) -> None:
        """Replaces the whole load; what the new one leaves open stays as it was."""
        self._agent({"execute": "lab-set", "arguments": load.numbers()})

    def inner(self) -> dict[str, Any]:
        """The guest's own figures (lab-get): boot, beats, ticks, burned_ms, dirtied_pages ..."""
        return self._agent({"execute": "lab-get"})

    @property
    def console(self) -> Console:
        return self.rig.listener.console(self.name)

    def counter(self) -> Counter:
        """What the console proves, seen from outside."""
        return self.console.counter()

    def reset_gap(self) -> None:
        """Largest gaps are counted from now on."""
        self.console.reset_gap()

    def cpu_percent(self, seconds: float = 1.0) -> tuple[float, float]:
        """CPU time its QEMU got, and time its vCPUs waited for a real CPU, both of one CPU.

        On a busy machine a guest gets less than it asks for: the sum of both tells what it wants.
        """
        host = self.host()
        start, got, waited = host.ask(self._times)
        time.sleep(seconds)
        end, got_after, waited_after = host.ask(self._times)
        scale = 1e7 * (end - start)  # nanoseconds in a percent of that time
        return (got_after - got) / scale, (waited_after - waited) / scale

    def _times(self, connection: Any) -> tuple[float, int, int]:
        domain = connection.lookupByName(self.name)
        stats = connection.domainListGetStats([domain])[0][1]
        delays = [stats.get(f"vcpu.{i}.delay", 0) for i in range(stats["vcpu.current"])]
        return time.monotonic(), stats["cpu.time"], sum(delays)

    # ---- migration, without any balancerd ----

    def migrate(
        self,
        target: str,
        *,
        flags: int = 0,
        bandwidth_mib_per_s: int | None = None,
        timeout: float = 120,
    ) -> Moved:
        """A live peer-to-peer migration over the migration network, as `virsh migrate` would do
        it: the yardstick. `flags` are added to LIVE|PEER2PEER|PERSIST_DEST|UNDEFINE_SOURCE."""
        import libvirt

        flags |= libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER
        flags |= libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
        goal = self.rig.host(target)
        parameters: dict[str, Any] = {libvirt.VIR_MIGRATE_PARAM_URI: goal.migration_uri}
        if bandwidth_mib_per_s is not None:
            parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = bandwidth_mib_per_s
        start = time.monotonic()
        self.host().ask(
            lambda c: c.lookupByName(self.name).migrateToURI3(goal.uri, parameters, flags),
            timeout=timeout,
        )
        seconds = time.monotonic() - start
        stats = goal.ask(
            lambda c: c.lookupByName(self.name).jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)
        )
        return Moved(
            seconds=seconds,
            downtime_ms=stats.get("downtime", 0),
            memory_bytes=stats.get("memory_processed", 0),
            iterations=stats.get("memory_iteration", 0),
        )


def create_disk(host: Host, shared: Path, name: str, disk: Disk, device: str = FIRST) -> None:
    """Makes the image, with the host's own qemu-img."""
    inside = disk.path_inside(name, device)
    directory = shared if disk.place == "shared" else host.disk / "local"
    (directory / Path(inside).name).unlink(missing_ok=True)
    if disk.base:
        beside = f"/lab/{disk.place}/{disk.base}"
        host.command("qemu-img", "create", "-q", "-f", "qcow2", "-b", beside, "-F", "qcow2", inside)
        return
    options = ["-o", "preallocation=full"] if disk.allocated else []
    host.command(
        "qemu-img", "create", "-q", "-f", disk.format, *options, inside, f"{disk.size_mib}M"
    )
