"""The fault script's real hosts: what goes wrong is done by hand, with virsh and signals."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import libvirt

from balancerd.adapters.aside import PowerAside
from balancerd.adapters.libvirt import LibvirtBackend
from balancerd.adapters.power import ExecPower
from balancerd.core.model import Method
from tests.lab.faults import (
    MIB,
    SOURCE,
    TARGET,
    THIRD,
    Case,
    Moment,
    Trouble,
)
from tests.lab.performance import Performance, holds
from tests.lab.rig import Guest, GuestSpec, LabError, Load, Rig
from tests.lab.test_libvirt_adapter import config

FLOWING = 4 * MIB  # copied: the migration is well under way
NAMESAKE = "11111111-2222-3333-4444-555555555555"
HOSTS = (SOURCE, TARGET, THIRD)


class MachineClock:
    """The machine's own."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


class RealStage:
    """The lab's three hosts and one guest on the first, whole until a trouble begins."""

    pulse = 0.2

    def __init__(self, guest: Guest, backend: LibvirtBackend) -> None:
        self.guest, self.rig, self.vm = guest, guest.rig, guest.name
        self.backend = backend
        self.power, self.clock = PowerAside(ExecPower({})), MachineClock()
        self._mends: list[tuple[float, Callable[[], None]]] = []
        self._by_hand: list[subprocess.Popen[bytes]] = []
        self._later_backends = ExitStack()

    def set(self, case: Case) -> None:
        """The guest's work and the link's speed as a case wants them."""
        if case.link_mb_per_s:
            self.rig.host(TARGET).limit("migration", 8 * case.link_mb_per_s)
            self._mends.append(
                (float("inf"), lambda: self.rig.host(TARGET).limit("migration", None))
            )
        if case.dirty_mb_per_s:
            before = self.guest.inner()["dirtied_pages"]
            self.guest.set_load(Load(dirty_mb_per_s=case.dirty_mb_per_s, working_set_mib=48))
            # First it fills its working set, and whoever looked then would take that for its use.
            self.rig.wait_for(
                lambda: self.guest.inner()["dirtied_pages"] > before, 20, "it writes to its memory"
            )
        if case.method is Method.COLD:
            self._virsh(SOURCE, "destroy", self.vm)

    def rest(self, seconds: float) -> None:
        """Sleep, and mend what is due."""
        time.sleep(seconds)
        self._mend(time.monotonic())

    def _mend(self, until: float) -> None:
        due = [mend for at, mend in self._mends if at <= until]
        self._mends = [(at, mend) for at, mend in self._mends if at > until]
        for mend in due:
            mend()

    def reached(self, moment: Moment) -> bool:
        """Whether the migration is there, as virsh tells it."""
        if moment is Moment.POST_COPY:
            # Not when its source says so: it is on its way to the target then, whose QEMU may never
            # read on where the link fails at that moment (QEMU 10.0, twice in eighty times).
            try:
                return "post-copy" in self._virsh(TARGET, "domstate", "--reason", self.vm)
            except LabError:  # no such VM there yet
                return False
        if moment is Moment.ARRIVED:
            paused = self._virsh(TARGET, "list", "--state-paused", "--name").split()
            return (
                self.vm in paused and self.vm not in self._virsh(SOURCE, "list", "--name").split()
            )
        return moment is Moment.COPYING and self.job().get("data_processed", 0) > FLOWING

    def job(self) -> dict[str, int]:
        """What virsh tells of the VM's migration on its source; nothing where there is none."""
        try:
            told = self._virsh(SOURCE, "domjobinfo", "--rawstats", self.vm)
        except LabError:
            return {}
        lines = (line.split(": ", 1) for line in told.splitlines() if ": " in line)
        return {key: int(value) for key, value in lines if value.isdigit()}

    def _virsh(self, host: str, *arguments: str) -> str:
        return self.rig.host(host).command("virsh", "-q", *arguments)

    def reborn(self) -> None:
        """Another backend takes the place of the one that was killed."""
        self.backend = self._later_backends.enter_context(backend_of(self.rig))

    # ---- troubles ----

    def begin(self, trouble: Trouble, lasts: float) -> None:
        """Let it go wrong now."""
        source, target = self.rig.host(SOURCE), self.rig.host(TARGET)
        match trouble:
            case Trouble.NONE:
                return
            case Trouble.SOURCE_DAEMON_KILLED | Trouble.TARGET_DAEMON_KILLED:
                host = source if trouble is Trouble.SOURCE_DAEMON_KILLED else target
                host.kill_libvirtd()
                self._later(lasts, host.start_libvirtd)
            case Trouble.SOURCE_DAEMON_STOPPED | Trouble.TARGET_DAEMON_STOPPED:
                host = source if trouble is Trouble.SOURCE_DAEMON_STOPPED else target
                host.freeze_libvirtd()
                self._later(lasts, host.thaw_libvirtd)
            case Trouble.LINK_CUT:
                target.cut("migration")
                self._later(lasts, lambda: target.mend("migration"))
            case Trouble.TARGET_QEMU_KILLED:
                target.kill_qemu(self.vm)
            case Trouble.SOURCE_QEMU_KILLED:
                source.kill_qemu(self.vm)
            case _:
                self._by_people(trouble)

    def _later(self, lasts: float, mend: Callable[[], None]) -> None:
        self._mends.append((time.monotonic() + lasts, mend))

    def _by_people(self, trouble: Trouble) -> None:
        match trouble:
            case Trouble.ABORTED_BY_HAND:
                self._virsh(SOURCE, "domjobabort", self.vm)
            case Trouble.MIGRATED_BY_HAND:
                self._migrate_by_hand()
            case Trouble.SHUT_OFF:
                self._virsh(SOURCE, "destroy", self.vm)
            case Trouble.DEFINED_ON_TARGET:
                definition = self._virsh(SOURCE, "dumpxml", "--inactive", self.vm)
                self.rig.host(TARGET).ask(lambda c: c.defineXML(definition).name())
            case Trouble.NAMESAKE_ON_TARGET:
                definition = GuestSpec(uuid=NAMESAKE).xml(self.vm)
                self.rig.host(TARGET).ask(lambda c: c.defineXML(definition).name())
                self._later(float("inf"), self._forget_namesake)

    def _forget_namesake(self) -> None:
        self._virsh(TARGET, "undefine", NAMESAKE)

    def _migrate_by_hand(self) -> None:
        """Begin one to the third host, and wait until that shows its half of the VM."""
        third = self.rig.host(THIRD)
        options = ["--live", "--p2p", "--persistent", "--undefinesource", "--bandwidth", "12"]
        command = ["virsh", "migrate", *options, self.vm, third.uri, "", third.migration_uri]
        argv = self.rig.host(SOURCE).entering([word for word in command if word])
        quiet = subprocess.DEVNULL
        self._by_hand.append(subprocess.Popen(argv, stdin=quiet, stdout=quiet, stderr=quiet))
        self.rig.wait_for(lambda: self.vm in third.guests(), 20, "a migration by hand begins")

    # ---- the end ----

    def runs_on(self) -> tuple[str, ...]:
        """Mend everything, let everybody come to an end, and ask every host where the VM is."""
        self.close()
        self.rig.wait_for(lambda: len(self._active()) <= 1, 60, f"one copy of {self.vm}")
        return self._active()

    def defined_on(self) -> tuple[str, ...]:
        """Mend everything, and ask every host whether it has the VM's definition."""
        self.close()
        return tuple(h for h in HOSTS if self.vm in self._virsh(h, "list", "--all", "--name"))

    def close(self) -> None:
        """Leave nothing broken behind, and nobody at work."""
        self._mend(float("inf"))
        self._later_backends.close()
        for process in self._by_hand:
            process.wait(60)

    def _active(self) -> tuple[str, ...]:
        return tuple(h for h in HOSTS if self.vm in self._virsh(h, "list", "--name").split())


def backend_of(rig: Rig) -> LibvirtBackend:
    """What a balancerd of its own would reach the hosts through."""
    return LibvirtBackend([config(host) for host in rig.hosts])


def at_home(rig: Rig, name: str, spec: GuestSpec) -> Guest:
    """The guest on the first host, idle and never harmed; a new one where the old one is not."""
    guest = rig.guest(name)
    if not _comes_home(guest, spec):
        rig.reset()
        guest = rig.start(name, SOURCE, spec)
    for other in (TARGET, THIRD):  # what an earlier case left there would be in the way of the next
        rig.host(other).delete_images(f"{name}.*")
    guest.set_load(Load())
    return guest


def _comes_home(guest: Guest, spec: GuestSpec) -> bool:
    """Whether the guest is whole and where it began; one whose disk all hosts see is fetched."""
    counter = guest.counter()
    if (counter.boots, counter.holes, counter.doubles) != (1, 0, 0) or counter.silent_s > 2:
        return False
    shared = spec.disk is None or spec.disk.place == "shared"
    where = guest.where()
    if len(where) == 1 and where != [SOURCE] and shared:
        try:
            guest.migrate(SOURCE)
        except libvirt.libvirtError:  # what post-copy tore may go on, and hold its job for good
            return False
    return list(guest.states()) == guest.where() == [SOURCE]


def went_on(guest: Guest) -> None:
    """It never booted again, never missed or doubled a beat, and still beats."""
    begun = guest.counter().beats
    guest.rig.wait_for(lambda: guest.counter().beats > begun, 20, f"{guest.name} goes on")
    counter = guest.counter()
    assert (counter.boots, counter.holes, counter.doubles) == (1, 0, 0), counter


def _name_for(spec: GuestSpec) -> str:
    """A name for each kind of guest that the cases want."""
    if spec.disk is None:
        return "v0"
    return f"v0-{spec.disk.place}{'-unlocked' if spec.disk.shareable else ''}"


def play(case: Case, rig: Rig, spec: GuestSpec, directory: Path) -> None:
    """Play one case of the script, and judge it."""
    guest = at_home(rig, _name_for(spec), spec)
    with backend_of(rig) as backend:
        stage = RealStage(guest, backend)
        try:
            stage.set(case)
            found = Performance(case, stage).play(directory)
            is_cold = case.method is Method.COLD
            where = stage.defined_on() if is_cold else stage.runs_on()
        finally:
            stage.close()
    holds(case, where, found)
    if where and not is_cold and found.outcome != "lost":
        went_on(guest)
        assert spec.disk is None or guest.inner()["disk_errors"] == 0
