"""Caps on real hosts: what one migration may send, and what is left of it when another begins."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from balancerd.adapters.libvirt import LibvirtBackend
from balancerd.adapters.sqlite.ledger import Ledger
from balancerd.adapters.sqlite.samples import SamplesStore
from balancerd.core.model import Link, Method, Snapshot
from balancerd.core.past.history import History
from balancerd.core.plan import Move, Plan
from balancerd.core.policies.policy import Policy
from balancerd.loop import Loop
from tests.lab.faults import MIB, SOURCE, TARGET, THIRD
from tests.lab.performance import lived, policy, told
from tests.lab.rig import Guest, GuestSpec, Load, Rig
from tests.lab.stage import FLOWING, RealStage, went_on
from tests.lab.test_libvirt_adapter import config

ALONE = 10 * MIB  # what is left of a link for one migration alone; two get half of it each
LINK = ALONE * 1.02 / 0.9  # limits.link_share is 0.9; libvirt takes whole MiB/s, rounded down
LINKS = tuple(Link(host, "switch", LINK) for host in (SOURCE, TARGET, THIRD))
MOVES = (
    Move(1, "a", SOURCE, TARGET, Method.PRE_COPY, "first"),
    Move(2, "b", SOURCE, THIRD, Method.PRE_COPY, "second"),
)


@pytest.fixture
def pair(rig: Rig) -> Iterator[tuple[Guest, Guest]]:
    """Two guests on h1 whose memory is mostly in use, so that copying it takes its time."""
    spec = GuestSpec(memory_mib=192, load=Load(working_set_mib=120))
    found = rig.start_all(dict.fromkeys(("a", "b"), (SOURCE, spec)))
    yield found["a"], found["b"]
    for guest in found.values():
        guest.remove()


def once(_: Snapshot, policy: Policy, past: History, now: float) -> Plan:
    """Both moves, as long as none was made."""
    moves = () if past.moves else MOVES
    return Plan(now, policy.name, policy.objective, moves, "test", 1.0, 0.0)


class Meter:
    """What a guest's migration sends, bytes per second, by the hypervisor's own count and clock."""

    def __init__(self, stage: RealStage) -> None:
        self.stage = stage
        self.readings: list[tuple[float, int]] = []
        self.settled = False

    def settle(self) -> None:
        """Caps have changed: what was read before them does not count."""
        self.settled = True
        self.readings.clear()

    def read(self) -> float:
        """The rate over the last two seconds at least; 0 while that is not known."""
        job = self.stage.job()
        if job.get("data_processed", 0) > FLOWING:  # its start is over
            self.readings.append((job["time_elapsed"] / 1000, job["data_processed"]))
        for at, sent in reversed(self.readings):
            last, all_sent = self.readings[-1]
            if last - at >= 2.0:
                return (all_sent - sent) / (last - at)
        return 0.0


def test_a_cap_is_obeyed_and_divided_anew_when_a_second_migration_begins(
    pair: tuple[Guest, Guest], tmp_path: Path
) -> None:
    """Dies when a link's share is not divided, or a running migration is not told."""
    rig, now = pair[0].rig, [policy(100 * MIB)]
    with (
        Ledger(tmp_path / "ledger.db") as ledger,
        SamplesStore(tmp_path / "samples.db") as samples,
        LibvirtBackend([config(host) for host in rig.hosts]) as backend,
    ):
        first, second = (RealStage(guest, backend) for guest in pair)
        loop = Loop(
            *(backend, first.power, ledger, samples, first.clock, lambda: now[-1]),
            links=LINKS,
            planner=once,
        )
        rates = watched(loop, first, second, now)
        outcomes = [told(ledger, guest.name).outcome for guest in pair]
    assert outcomes == ["done", "done"]
    alone, *shared = rates
    assert alone == pytest.approx(ALONE, rel=0.15)
    assert shared == [pytest.approx(ALONE / 2, rel=0.15)] * 2
    assert (first.runs_on(), second.runs_on()) == ((TARGET,), (THIRD,))
    for guest in pair:
        went_on(guest)


def watched(loop: Loop, first: RealStage, second: RealStage, now: list[Policy]) -> list[float]:
    """The rate of the first migration alone, and of both once the second runs beside it."""
    meters, alone, shared = (Meter(first), Meter(second)), 0.0, list[float]()
    loop.start()
    for _ in lived(loop, first):
        found = [meter.read() for meter in meters]
        if not alone:
            alone = found[0]
        elif len(now) == 1:
            now.append(policy(100 * MIB, per_host=2))  # the operator allows a second one
        elif not shared and all(found) and 0 < found[0] < 0.8 * alone:
            shared = found if meters[0].settled else []
            for meter in meters:
                meter.settle()
        if alone and not loop.busy():
            break
    return [alone, *shared]
