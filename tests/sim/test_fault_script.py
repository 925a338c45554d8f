"""The fault script of the real lab, on simulated hosts: no end but those of real ones.

The table is `tests/lab/faults.py`; `tests/lab/test_faults_of_*.py` play it on libvirtd and QEMU.
"""

from pathlib import Path

import pytest

from balancerd.adapters.sim.scenario import Fault, FaultKind
from balancerd.adapters.sim.world import World
from balancerd.core.model import Method
from balancerd.core.observation import Presence
from tests.lab.faults import (
    MIB,
    SCRIPT,
    SOURCE,
    TARGET,
    THIRD,
    Case,
    Moment,
    Trouble,
)
from tests.lab.performance import Performance, holds
from tests.worlds import a_flavour, a_host_group, a_scenario, a_world

FLOWING = 2.0  # seconds after which a migration is well under way
STRUCK = {
    Trouble.SOURCE_DAEMON_KILLED: (FaultKind.DAEMON_KILLED, SOURCE),
    Trouble.SOURCE_DAEMON_STOPPED: (FaultKind.UNREACHABLE, SOURCE),
    Trouble.TARGET_DAEMON_KILLED: (FaultKind.DAEMON_KILLED, TARGET),
    Trouble.TARGET_DAEMON_STOPPED: (FaultKind.UNREACHABLE, TARGET),
    Trouble.LINK_CUT: (FaultKind.NETWORK_CUT, TARGET),
}


class SimulatedStage:
    """Three simulated hosts and a VM on the first, like those of the lab."""

    vm = "v0"
    pulse = 1.0

    def __init__(self, case: Case) -> None:
        self.world = self.backend = self.power = self.clock = _world(case)
        self._began: float | None = None
        if case.method is Method.COLD:
            self.world.hand.shut_off(self.vm)

    def rest(self, seconds: float) -> None:
        """Let virtual time pass; the world mends by itself what it broke."""
        self.world.advance(self.world.now() + seconds)

    def reached(self, moment: Moment) -> bool:
        """Whether the migration is there."""
        if moment is Moment.POST_COPY:
            return self._is_torn()
        if moment is Moment.ARRIVED:
            said = self.world.locate(self.vm, "", [SOURCE, TARGET]).presence
            return said == {SOURCE: Presence.ABSENT, TARGET: Presence.HANDED_OVER}
        if self.world.migrating() and self._began is None:
            self._began = self.world.monotonic()
        began = self._began
        return moment is Moment.COPYING and (
            began is not None and self.world.monotonic() >= began + FLOWING
        )

    def _is_torn(self) -> bool:
        """Whether the VM's memory is on both hosts."""
        return self.world.copies(self.vm).get(TARGET) is Presence.POSTCOPY

    def reborn(self) -> None:
        """Another process hears nothing of what this one began."""
        self.world.forget()

    def begin(self, trouble: Trouble, lasts: float) -> None:
        """Let it go wrong now."""
        hand = self.world.hand
        match trouble:
            case Trouble.TARGET_QEMU_KILLED | Trouble.SOURCE_QEMU_KILLED if self._is_torn():
                hand.crash(self.vm, at_source=trouble is Trouble.SOURCE_QEMU_KILLED)
            case Trouble.NONE | Trouble.TARGET_QEMU_KILLED:
                pass  # the latter strikes at a time that the world has chosen at the start
            case Trouble.ABORTED_BY_HAND:
                hand.abort(self.vm)
            case Trouble.MIGRATED_BY_HAND:
                hand.migrate(self.vm, THIRD)
            case Trouble.SHUT_OFF:
                hand.shut_off(self.vm)
            case Trouble.DEFINED_ON_TARGET:
                hand.define(self.vm, TARGET)
            case _:
                kind, host = STRUCK[trouble]
                self.world.strike(Fault(kind=kind, host=host, at=0.0, lasts=lasts))


def _world(case: Case) -> World:
    """A guest of the lab's size; links of a gigabit, or as slow as the case wants them."""
    dies = case.trouble is Trouble.TARGET_QEMU_KILLED and case.moment is Moment.COPYING
    flavour = a_flavour(
        vcpus=1,
        cpu=1.0,
        memory=128 * MIB,
        dirty_rate=case.dirty_mb_per_s * MIB,
        working_set=48 / 128,
    )
    scenario = a_scenario(
        hosts=[a_host_group(name="h%d", memory=2048 * MIB)],
        flavours=[flavour],
        vms={"name": "v%d", "count": 1},
        network={"host": (case.link_mb_per_s or 119) * MIB},
        faults=[{"kind": "migration-fails"}] if dies else [],
        migration={"disk_locks": not case.unlocked},
    )
    return a_world(scenario)


PLAYED = [case for case in SCRIPT if not case.only_real]


@pytest.mark.parametrize("case", PLAYED, ids=str)
def test_a_simulated_end_is_one_that_real_hosts_may_come_to(case: Case, tmp_path: Path) -> None:
    """Dies when the simulated libvirt is kinder than the real one, or harsher."""
    stage = SimulatedStage(case)
    found = Performance(case, stage).play(tmp_path)
    stage.rest(60.0)
    is_cold = case.method is Method.COLD
    where = tuple(stage.world.copies(stage.vm)) if is_cold else stage.world.running(stage.vm)
    holds(case, where, found)
    assert stage.world.violations == []
