"""A control group for each host: what its processes are, what they use, what they may use.

With cgroup v1 every controller is a tree of its own, with v2 there is one tree. Trees that are not
mounted (in a bare chroot) are mounted below the lab's run directory.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .layout import HostSpec, LabError, Layout
from .shell import run, succeeds

PERIOD_US = 50_000


@dataclass(frozen=True)
class Trees:
    """Where the controllers are: `cpu` limits, `cpuacct` counts (the same place with v2)."""

    version: int
    cpu: Path
    cpuacct: Path
    memory: Path

    def directories(self, group: str) -> list[Path]:
        return [tree / group for tree in dict.fromkeys((self.cpu, self.cpuacct, self.memory))]


def find_trees(layout: Layout) -> Trees:
    """The machine's control groups; mounts what is missing."""
    v1 = _v1_hierarchies()
    if all(name in v1 for name in ("cpu", "cpuacct", "memory")):
        places = [_v1_tree(layout, v1[name], name) for name in ("cpu", "cpuacct", "memory")]
        return Trees(1, *places)
    tree = _mounted("cgroup2", None) or _mount(layout, "cgroup2", None)
    _delegate(tree)
    return Trees(2, tree, tree, tree)


def _v1_hierarchies() -> dict[str, str]:
    """Controller -> the controllers mounted with it, for those that v1 has."""
    found = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        controllers = line.split(":", 2)[1]
        for name in controllers.split(","):
            if name and "=" not in name:
                found[name] = controllers
    return found


def _v1_tree(layout: Layout, controllers: str, name: str) -> Path:
    return _mounted("cgroup", name) or _mount(layout, "cgroup", controllers)


def _mounted(kind: str, option: str | None) -> Path | None:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, filesystem, options, *_ = line.split()
        if filesystem == kind and (option is None or option in options.split(",")):
            return Path(place)
    return None


def _mount(layout: Layout, kind: str, controllers: str | None) -> Path:
    place = layout.run / "cgroup" / (controllers or "unified").replace(",", "-")
    place.mkdir(parents=True, exist_ok=True)
    options = ["-o", controllers] if controllers else []
    run(["mount", "-t", kind, *options, "balancerd-lab", str(place)])
    return place


def _delegate(tree: Path) -> None:
    """Has the v2 controllers available below the root of the tree."""
    wanted = {"cpu", "memory"}
    if not wanted <= set((tree / "cgroup.controllers").read_text().split()):
        raise LabError("the control groups of this machine lack the cpu or memory controller")
    control = tree / "cgroup.subtree_control"
    if wanted <= set(control.read_text().split()):
        return
    try:
        control.write_text("+cpu +memory")
    except OSError:
        # In a container the root of the tree holds processes, and such a group may not have
        # children with controllers: they must step into a leaf first.
        _step_aside(tree)
        control.write_text("+cpu +memory")


def _step_aside(tree: Path) -> None:
    leaf = tree / "balancerd-lab-others"
    leaf.mkdir(exist_ok=True)
    for pid in (tree / "cgroup.procs").read_text().split():
        with suppress(OSError):  # it ended meanwhile, or is the kernel's
            (leaf / "cgroup.procs").write_text(pid)


def unmount_own(layout: Layout) -> None:
    for place in (layout.run / "cgroup").glob("*"):
        succeeds(["umount", str(place)])


class Group:
    """One host's control group."""

    def __init__(self, trees: Trees, name: str) -> None:
        self.trees = trees
        self.name = name
        self.directories = trees.directories(name)

    def create(self) -> None:
        parent = self.name.split("/", maxsplit=1)[0]
        for tree in dict.fromkeys((self.trees.cpu, self.trees.cpuacct, self.trees.memory)):
            (tree / parent).mkdir(exist_ok=True)
            if self.trees.version == 2:
                (tree / parent / "cgroup.subtree_control").write_text("+cpu +memory")
            (tree / self.name).mkdir(exist_ok=True)
        self._prefer(self.trees.cpu / parent)

    def _prefer(self, directory: Path) -> None:
        """A lab goes before the rest of the machine: a guest that is to be busy has to be.

        What a guest asks for is a duty cycle; on a busy machine it would get only part of it.
        """
        name, most = (
            ("cpu.weight", 10_000) if self.trees.version == 2 else ("cpu.shares", 100 * 1024)
        )
        (directory / name).write_text(str(most))

    def limit(self, spec: HostSpec) -> None:
        self._limit_cpu(spec)
        self._limit_memory(spec.memory_mib << 20)

    def _limit_cpu(self, spec: HostSpec) -> None:
        if spec.quota_percent >= 100 * (os.cpu_count() or 1):
            return
        quota = spec.quota_percent * PERIOD_US // 100
        directory = self.trees.cpu / self.name
        if self.trees.version == 2:
            (directory / "cpu.max").write_text(f"{quota} {PERIOD_US}")
        elif (directory / "cpu.cfs_quota_us").exists():
            (directory / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (directory / "cpu.cfs_quota_us").write_text(str(quota))

    def _limit_memory(self, limit: int) -> None:
        directory = self.trees.memory / self.name
        name = "memory.max" if self.trees.version == 2 else "memory.limit_in_bytes"
        (directory / name).write_text(str(limit))

    def joining(self, argv: list[str]) -> list[str]:
        """The command that runs `argv` inside the group, with core files allowed.

        libvirtd gives each QEMU a core file limit and fails if its own is lower.
        """
        files = [str(directory / "cgroup.procs") for directory in self.directories]
        script = f"for f in {' '.join(files)}; do echo $$ >$f || exit 1; done; ulimit -c unlimited"
        return ["/bin/sh", "-c", f'{script}; exec "$@"', "sh", *argv]

    def pids(self) -> list[int]:
        found: set[int] = set()
        for directory in self.directories:
            with suppress(OSError):
                found |= {int(pid) for pid in (directory / "cgroup.procs").read_text().split()}
        return sorted(found)

    def kill(self, timeout: float = 10) -> None:
        """Ends every process in the group and waits until none is left."""
        deadline = time.monotonic() + timeout
        while pids := self.signal_all():
            if time.monotonic() > deadline:
                raise LabError(f"processes {pids} of {self.name} do not end")
            time.sleep(0.01)

    def signal_all(self) -> list[int]:
        """Sends SIGKILL to every process of the group, once."""
        pids = self.pids()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return pids

    def remove(self) -> None:
        for directory in self.directories:
            _remove_directory(directory)


def _remove_directory(directory: Path) -> None:
    """A group whose last process has just ended may be busy for a moment."""
    for _ in range(100):
        try:
            directory.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.01)


def groups_of(layout: Layout, trees: Trees) -> list[Group]:
    """The groups that exist of a lab, left over or in use."""
    names = {
        f"{layout.label}/{entry.name}"
        for directory in trees.directories(layout.label)
        if directory.is_dir()
        for entry in directory.iterdir()
        if entry.is_dir()
    }
    return [Group(trees, name) for name in sorted(names)]


def weigh(layout: Layout, trees: Trees, hosts: int) -> None:
    """Lets each host count as much as one busy process outside. Untold, the whole lab would."""
    name, value = ("cpu.weight", 100) if trees.version == 2 else ("cpu.shares", 1024)
    file = trees.cpu / layout.label / name
    if file.exists():
        file.write_text(str(value * hosts))


def remove_all(layout: Layout, trees: Trees) -> None:
    groups = groups_of(layout, trees)
    for group in groups:
        group.signal_all()
    for group in groups:
        group.kill()
        group.remove()
    for directory in trees.directories(layout.label):
        _remove_directory(directory)
