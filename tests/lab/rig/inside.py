"""The first process of a lab host. Not imported: run in fresh namespaces by `unshare`.

Builds the host's root from the installed tree, steps into it, and then does what PID 1 must do
(collect ended processes) and what makes the host look like a machine of its own: it writes the
/proc/stat and /proc/meminfo that libvirtd reads, from what the host's control group used.

Runs with `python -I -S`, standard library only. After chroot() no module can be loaded any more,
so everything needed is imported at the top and files of the outer world are opened before.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
UPDATE_SECONDS = 0.25
TICK_NS = 10_000_000  # /proc/stat counts in hundredths of a second
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")

libc = ctypes.CDLL(None, use_errno=True)


def mount(
    source: str, target: str | Path, kind: str = "", flags: int = 0, options: str = ""
) -> None:
    done = libc.mount(
        source.encode(),
        str(target).encode(),
        kind.encode(),
        ctypes.c_ulong(flags),
        options.encode(),
    )
    if done != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot mount {target}: {os.strerror(number)}")


def isolate() -> None:
    """Keeps what is mounted from here on from showing outside.

    That is said of the root of the mount namespace, which a process started in a chroot must first
    find: entering its own namespace leads there.
    """
    start = os.open("/", os.O_RDONLY)
    namespace = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    if libc.setns(namespace, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot find the root: {os.strerror(number)}")
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    os.fchdir(start)
    os.chroot(".")
    os.close(start)
    os.close(namespace)


def bind(source: str | Path, target: str | Path, *, read_only: bool = False) -> None:
    mount(str(source), target, flags=MS_BIND)
    if read_only:
        mount("none", target, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)


def build_root(root: Path, spec: dict[str, Any]) -> None:
    """Everything below `root` is read-only but for what a host writes."""
    root.mkdir(exist_ok=True)
    bind(spec["tree"], root, read_only=True)
    mount("proc", root / "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("sysfs", root / "sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY)
    for place in ("run", "tmp"):
        mount("tmpfs", root / place, "tmpfs", MS_NOSUID | MS_NODEV)
    build_devices(root / "dev")
    for source, place in spec["writable"]:
        bind(source, root / place)
    for source, place in spec["read_only"]:
        bind(source, root / place, read_only=True)


def build_devices(dev: Path) -> None:
    """No /dev/kvm: the guests are emulated, and libvirt must not find a half-usable one."""
    mount("tmpfs", dev, "tmpfs", MS_NOSUID, "mode=755")
    for name in DEVICES:
        (dev / name).touch()
        bind(f"/dev/{name}", dev / name)
    for name in ("pts", "shm"):
        (dev / name).mkdir()
    mount("devpts", dev / "pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666")
    mount("tmpfs", dev / "shm", "tmpfs", MS_NOSUID | MS_NODEV)
    (dev / "ptmx").symlink_to("pts/ptmx")
    (dev / "fd").symlink_to("/proc/self/fd")


def write_tree(base: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_text(text + "\n")


def build_processors(root: Path, scratch: Path, cpus: int, memory_kib: int) -> None:
    """A /sys that shows as many CPUs and as much memory as the host shall have, in one node."""
    everything, mask = f"0-{cpus - 1}" if cpus > 1 else "0", f"{(1 << cpus) - 1:x}"
    processors = {"present": everything, "online": everything, "possible": everything}
    processors["kernel_max"] = str(cpus - 1)
    for cpu in range(cpus):
        topology = f"cpu{cpu}/topology"
        processors |= {
            f"{topology}/physical_package_id": "0",
            f"{topology}/die_id": "0",
            f"{topology}/core_id": str(cpu),
            f"{topology}/thread_siblings": f"{1 << cpu:x}",
            f"{topology}/thread_siblings_list": str(cpu),
            f"{topology}/core_siblings": mask,
            f"{topology}/core_siblings_list": everything,
        }
        if cpu:
            processors[f"cpu{cpu}/online"] = "1"
    nodes = dict.fromkeys(("online", "possible", "has_cpu", "has_memory"), "0")
    nodes |= {
        "node0/cpulist": everything,
        "node0/cpumap": mask,
        "node0/distance": "10",
        "node0/meminfo": f"Node 0 MemTotal: {memory_kib} kB\nNode 0 MemFree: {memory_kib} kB",
    }
    write_tree(scratch / "cpu", processors)
    write_tree(scratch / "node", nodes)
    for cpu in range(cpus):
        (scratch / f"node/node0/cpu{cpu}").symlink_to(f"../../cpu/cpu{cpu}")
    for name in ("cpu", "node"):
        place = root / "sys/devices/system" / name
        if place.is_dir():
            bind(scratch / name, place, read_only=True)


class Meter:
    """What the host's processes use, read from the control group through files held open."""

    def __init__(self, version: int, cpuacct: str, memory: str) -> None:
        self.version = version
        names = ("cpu.stat", "memory.stat", "memory.current")
        if version == 1:
            names = ("cpuacct.usage_user", "memory.stat", "memory.usage_in_bytes")
        self.cpu, self.memory_stat, self.memory_usage = (
            os.open(f"{directory}/{name}", os.O_RDONLY)
            for directory, name in zip((cpuacct, memory, memory), names, strict=True)
        )
        self.system = os.open(f"{cpuacct}/cpuacct.usage_sys", os.O_RDONLY) if version == 1 else -1

    def cpu_ns(self) -> tuple[int, int]:
        """Time in user and in system mode."""
        if self.version == 1:
            return int(read(self.cpu)), int(read(self.system))
        values = table(read(self.cpu))
        return values[b"user_usec"] * 1000, values[b"system_usec"] * 1000

    def memory_bytes(self) -> tuple[int, int]:
        """Everything charged to the host, and how much of it is file cache."""
        values = table(read(self.memory_stat))
        cache = values[b"total_cache"] if self.version == 1 else values[b"file"]
        return int(read(self.memory_usage)), cache


def read(descriptor: int) -> bytes:
    return os.pread(descriptor, 16384, 0)


def table(text: bytes) -> dict[bytes, int]:
    rows = (line.split() for line in text.splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2}


def stat_text(cpus: int, user: int, system: int, idle: int, booted: int) -> bytes:
    """Numbers of fixed width: a reader never meets a file that is half old and longer."""

    def row(name: str, count: int) -> str:
        used, kernel, rest = (value // TICK_NS // count for value in (user, system, idle))
        return f"{name} {used:012d} 0 {kernel:012d} {rest:012d} 0 0 0 0 0 0\n"

    lines = [row("cpu ", 1), *(row(f"cpu{cpu}", cpus) for cpu in range(cpus))]
    return ("".join(lines) + f"ctxt 0\nbtime {booted}\nprocesses 1\n").encode()


def meminfo_text(total: int, used: int, cache: int) -> bytes:
    values = {
        "MemTotal": total,
        "MemFree": max(0, total - used),
        "MemAvailable": max(0, total - used + cache),
        "Buffers": 0,
        "Cached": cache,
        "SwapTotal": 0,
        "SwapFree": 0,
    }
    return "".join(
        f"{name + ':':16}{value >> 10:12d} kB\n" for name, value in values.items()
    ).encode()


class Figures:
    """The two files in /proc that carry the host's own figures."""

    def __init__(self, scratch: Path, spec: dict[str, Any]) -> None:
        self.cpus, self.memory = spec["cpus"], spec["memory_bytes"]
        self.meter = Meter(spec["cgroup"], spec["cpuacct"], spec["memory"])
        self.booted, self.start, self.idle = int(time.time()), time.monotonic_ns(), 0
        self.files = {
            name: os.open(scratch / name, os.O_RDWR | os.O_CREAT, 0o644)
            for name in ("stat", "meminfo")
        }
        self.update()

    def update(self) -> None:
        user, system = self.meter.cpu_ns()
        total = self.cpus * (time.monotonic_ns() - self.start)
        self.idle = max(self.idle, total - user - system)  # a counter never goes back
        text = stat_text(self.cpus, user, system, self.idle, self.booted)
        os.pwrite(self.files["stat"], text, 0)
        os.pwrite(self.files["meminfo"], meminfo_text(self.memory, *self.meter.memory_bytes()), 0)


def collect_ended() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def prepare(spec: dict[str, Any]) -> Figures:
    scratch, root = Path(spec["run"]), Path(spec["run"]) / "root"
    socket.sethostname(spec["name"])
    isolate()
    build_root(root, spec)
    build_processors(root, scratch, spec["cpus"], spec["memory_bytes"] >> 10)
    figures = Figures(scratch, spec)
    for name in figures.files:
        bind(scratch / name, root / "proc" / name)
    os.chroot(root)
    os.chdir("/")
    return figures


def probe() -> None:
    """Whether this machine lets a host be built at all; ends with an error if not."""
    isolate()
    mount("sysfs", "/sys", "sysfs")
    mount("proc", "/proc", "proc")


def main() -> None:
    if sys.argv[1] == "probe":
        probe()
        return
    spec = json.loads(sys.argv[1])
    # /proc is still the outer one: it shows this process by the number others know it by.
    print(f"pid {Path('/proc/self').readlink()}", flush=True)
    try:
        figures = prepare(spec)
    except OSError as error:
        print(f"failed {error}", flush=True)
        sys.exit(1)
    print("ready", flush=True)
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        time.sleep(UPDATE_SECONDS)
        collect_ended()
        figures.update()


if __name__ == "__main__":
    main()
