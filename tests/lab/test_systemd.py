"""The shipped unit under a real systemd: whatever its sandbox forbids, balancerd does without.

systemd is the first process of namespaces of its own, over copies of /etc and /var into which
everything goes as README says. Only where Python and balancerd are differs, and where the log goes.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.rig import Rig, ssh
from tests.lab.service import policy
from tests.lab.test_libvirt_adapter import until

ROOT = Path(__file__).parents[2]
SYSTEMD = Path("/usr/lib/systemd/systemd")
TARGETS = ("sysinit", "basic", "shutdown", "network-online")
# What README has in /opt and /usr/local may be anywhere here, a home or /tmp included.
DROP_IN = """
[Service]
ProtectHome=no
PrivateTmp=no
StandardOutput=append:/var/log/balancerd.log
StandardError=inherit
"""
BOOT = """
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 keep {work}/keep
{keep}
for of in etc var; do
    mount -t overlay -o lowerdir=/$of,upperdir={work}/$of,workdir={work}/$of.work overlay /$of
done
mount -t tmpfs -o mode=755 local /usr/local/bin
ln -s {bin}/balancerd {bin}/balancerctl /usr/local/bin/
mount -t proc proc /proc
mount -t tmpfs -o mode=755 run /run
mount -t tmpfs cgroup /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
systemd-sysusers {root}/systemd/balancerd.sysusers
systemd-tmpfiles --create {root}/systemd/balancerd.tmpfiles
install -o balancerd -g balancerd -m 600 {ssh}/key /var/lib/balancerd/.ssh/id_ed25519
install -o balancerd -g balancerd -m 600 {ssh}/known_hosts /var/lib/balancerd/.ssh/
export container=lab SYSTEMD_UNIT_PATH=/etc/systemd/lab
exec {systemd} --system --unit=balancerd.service --log-target=null
"""


class Machine:
    """A machine that has just booted, with balancerd installed and started on it."""

    def __init__(self, work: Path, group: Path, ssh: Path) -> None:
        self._work, self._group, self._ssh = work, group, ssh
        self._process: subprocess.Popen[bytes] | None = None

    def boot(self) -> None:
        script = BOOT.format(
            work=self._work,
            keep="\n".join(keeping(self._work)),
            bin=Path(sys.executable).parent,
            root=ROOT,
            systemd=SYSTEMD,
            ssh=self._ssh,
        )
        self._group.mkdir()
        spaces = ["--mount", "--pid", "--uts", "--ipc", "--cgroup", "--fork", "--kill-child"]
        joining = f'echo $$ >{self._group}/cgroup.procs; exec "$@"'
        with (self._work / "boot.log").open("wb") as log:
            self._process = subprocess.Popen(
                ["sh", "-c", joining, "sh", "unshare", *spaces, "sh", "-c", script],
                stdout=log,
                stderr=log,
            )
        until(lambda: self._first() and self.shows("is-system-running"), 60, "systemd answers")

    def _first(self) -> str:
        """The first process of the machine, "" as long as there is none."""
        assert self._process is not None
        assert self._process.poll() is None, (self._work / "boot.log").read_text()
        pid = self._process.pid
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().strip()

    def inside(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command run by root on the machine."""
        entering = ["nsenter", "-t", self._first(), "-m", "-p", "-u", "-i", "-C"]
        return subprocess.run([*entering, *words], capture_output=True, text=True, timeout=60)

    def shows(self, *words: str) -> str:
        return self.inside("systemctl", *words).stdout.strip()

    def log(self) -> str:
        return (self._work / "var/log/balancerd.log").read_text()

    def until_active(self, other_than: str = "") -> str:
        """Wait until systemd was told that balancerd is ready; its process."""

        def ready() -> bool:
            pid = self.shows("show", "-P", "MainPID", "balancerd")
            return self.shows("is-active", "balancerd") == "active" and pid != other_than

        until(ready, 90, f"balancerd is active; {self.shows('status', 'balancerd')}")
        return self.shows("show", "-P", "MainPID", "balancerd")

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        for _ in range(100):
            for group in sorted(self._group.rglob("*/"), reverse=True):
                if group.is_dir():
                    remove(group)
            if remove(self._group):
                return
            time.sleep(0.05)


def remove(group: Path) -> bool:
    try:
        group.rmdir()
    except OSError:
        return not group.exists()
    return True


def keeping(work: Path) -> Iterator[str]:
    """What lets others reach Python and the project, though directories around them are closed."""
    needed = {path: gate for path in (Path(sys.base_prefix), ROOT) if (gate := closed(path))}
    for number, path in enumerate(needed):
        kept, upper = work / "keep" / str(number), work / f"kept{number}"
        layers = f"lowerdir={path},upperdir={upper},workdir={upper}.work"
        yield f"mkdir -p -m 755 {kept} {upper} {upper}.work"
        yield f"mount -t overlay -o {layers} overlay {kept}"
    yield from (f"mount -t tmpfs -o mode=755 gate {gate}" for gate in sorted({*needed.values()}))
    for number, path in enumerate(needed):
        yield f"mkdir -p {path}; mount --bind {work}/keep/{number} {path}"


def closed(path: Path) -> Path | None:
    """The outermost directory on the way to a path that others may not enter."""
    way = (*reversed(path.parents), path)
    return next((place for place in way if not place.stat().st_mode & stat.S_IXOTH), None)


def tree_of_groups() -> Path | None:
    """Where control groups of version 2 are mounted."""
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return next((Path(place) for _, place, kind, *_ in mounts if kind == "cgroup2"), None)


def install(work: Path, rig: Rig) -> None:
    """What README has an operator copy."""
    for name in ("etc", "var", "etc.work", "var.work", "keep", "var/log", "etc/balancerd"):
        (work / name).mkdir(parents=True)
    units = work / "etc/systemd/lab"
    (units / "balancerd.service.d").mkdir(parents=True)
    shutil.copy(ROOT / "systemd/balancerd.service", units)
    (units / "balancerd.service.d/lab.conf").write_text(DROP_IN)
    for target in TARGETS:
        (units / f"{target}.target").write_text("[Unit]\nDefaultDependencies=no\n")
    uris = {host.name: host.uri for host in rig.hosts}
    uris["h2"] = f"qemu+ssh://root@{rig.host('h2').address}/system"
    hosts = "".join(f'[[host]]\nname = "{name}"\nuri = "{uri}"\n' for name, uri in uris.items())
    (work / "etc/balancerd/balancerd.toml").write_text(
        f'site = "lab"\npolicy = "policy.toml"\ncycle = "1s"\n{hosts}'
    )
    (work / "etc/balancerd/policy.toml").write_text(policy("spread", mode="observe"))


@pytest.fixture(scope="module")
def machine(standing_rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    tree = tree_of_groups()
    if not SYSTEMD.exists() or tree is None:
        pytest.skip("no systemd is installed, or no control groups of version 2 are mounted")
    work = tmp_path_factory.mktemp("machine")
    install(work, standing_rig)
    group = tree / f"balancerd-systemd-{os.getpid()}"
    machine = Machine(work, group, ssh.directory(standing_rig.layout))
    try:
        machine.boot()
        yield machine
    finally:
        machine.end()


def test_balancerd_runs_in_the_sandbox_of_its_unit(machine: Machine) -> None:
    """Dies when the filter of system calls kills: NumPy asks for mbind, libvirt for capset."""
    pid = machine.until_active()
    until(lambda: "observing" in machine.log(), 60, machine.log())
    assert "Traceback" not in machine.log()
    assert "observing" in machine.inside("balancerctl", "status").stdout
    assert machine.inside("stat", "-c", "%U %a", f"/proc/{pid}").stdout.startswith("balancerd ")
    assert machine.inside("stat", "-c", "%U %a", "/var/lib/balancerd").stdout == "balancerd 750\n"


def test_it_reaches_a_host_by_ssh_with_the_key_in_its_home(machine: Machine) -> None:
    """Dies when the sandbox keeps libvirt from starting ssh, or ssh from its key."""
    machine.until_active()
    until(lambda: "3 on, 0 asleep;" in machine.inside("balancerctl", "status").stdout, 60, "h2")


def test_its_sandbox_shows_what_is_read_of_the_machine_itself(machine: Machine) -> None:
    """Dies with ProcSubset=pid: a host on which balancerd runs could not be read."""
    pid = machine.until_active()
    for name in ("stat", "meminfo"):
        assert machine.inside("nsenter", "-t", pid, "-m", "cat", f"/proc/{name}").stdout


def test_a_reload_with_a_wrong_file_fails_and_changes_nothing(machine: Machine) -> None:
    pid = machine.until_active()
    file = Path("/etc/balancerd/policy.toml")
    right = machine.inside("cat", str(file)).stdout
    assert machine.inside("sh", "-c", f"echo 'nonsense = 1' >>{file}").returncode == 0
    assert machine.inside("systemctl", "reload", "balancerd").returncode != 0
    assert "nonsense: unknown key" in machine.log()
    assert machine.until_active() == pid
    machine.inside("sh", "-c", f"cat >{file} <<'end'\n{right}\nend")
    assert machine.inside("systemctl", "reload", "balancerd").returncode == 0


def test_it_is_started_again_when_it_was_killed_and_ends_well_when_stopped(
    machine: Machine,
) -> None:
    pid = machine.until_active()
    machine.inside("kill", "-KILL", pid)
    machine.until_active(other_than=pid)
    assert machine.inside("systemctl", "stop", "balancerd").returncode == 0
    assert machine.shows("show", "-P", "Result", "balancerd") == "success"
    assert machine.log().rstrip().endswith("stopped; migrations that run go on by themselves")
