"""What somebody else did to VMs is seen, recorded and respected."""

from dataclasses import replace

import pytest

from balancerd.core.model import Gap, GapKind, Snapshot, VMState
from balancerd.core.past.history import History
from balancerd.core.past.vetoes import Deed, deeds
from balancerd.core.placing.movable import fixed_vms
from tests.executions import POLICY, START, snapshot


def stopped(seen: Snapshot, vm: str, state: VMState) -> Snapshot:
    vms = {**seen.cluster.vms, vm: replace(seen.cluster.vms[vm], state=state)}
    return replace(seen, cluster=replace(seen.cluster, vms=vms))


def flying(seen: Snapshot, vm: str, target: str) -> Snapshot:
    return replace(seen, cluster=replace(seen.cluster, flights={vm: target}))


def whats(before: Snapshot, after: Snapshot, *own: str) -> list[str]:
    return [f"{deed.vm} {deed.what}" for deed in deeds(before, after, own)]


def test_a_vm_that_is_elsewhere_was_moved() -> None:
    assert whats(snapshot(a="h1", b="h1"), snapshot(a="h3", b="h1")) == ["a moved from h1 to h3"]


def test_what_balancerd_moves_itself_is_nobody_elses_deed() -> None:
    """Dies when our own migrations are taken for an operator's."""
    assert whats(snapshot(a="h1"), snapshot(a="h3"), "a") == []


@pytest.mark.parametrize(
    ("state", "what"), [(VMState.PAUSED, "paused"), (VMState.SHUTOFF, "shut off")]
)
def test_a_vm_that_stopped_was_stopped(state: VMState, what: str) -> None:
    seen = snapshot(a="h1")
    assert whats(seen, stopped(seen, "a", state)) == [f"a {what} on h1"]
    assert whats(stopped(seen, "a", state), stopped(seen, "a", state)) == []


def test_a_migration_that_begins_is_told_once() -> None:
    seen = snapshot(a="h1")
    assert whats(seen, flying(seen, "a", "h2")) == ["a began to move from h1 to h2"]
    assert whats(flying(seen, "a", "h2"), flying(seen, "a", "h2")) == []


@pytest.mark.parametrize("blind", ["before", "after"])
def test_nothing_is_concluded_from_a_host_that_was_not_seen(blind: str) -> None:
    """Dies when a host that comes back with its VMs shut off counts as forty vetoes."""
    seen = snapshot(a="h1")
    gone = stopped(seen, "a", VMState.SHUTOFF)
    gap = (Gap("host", "h1", GapKind.UNREACHABLE, "", START),)
    before = replace(seen, gaps=gap) if blind == "before" else seen
    after = replace(gone, gaps=gap) if blind == "after" else gone
    assert whats(before, after) == []


def test_a_deed_is_a_veto_for_a_while_except_on_a_host_that_is_drained() -> None:
    seen = snapshot(a="h1")
    history = History(deeds={"a": Deed("a", "moved from h3 to h1", START)})
    later = START + POLICY.limits.veto
    refusal = fixed_vms(seen, POLICY, history, START + 60)["a"]
    assert refusal.constraint == "veto"
    assert "somebody moved from h3 to h1" in refusal.detail
    assert not fixed_vms(seen, POLICY, history, later)
    assert not fixed_vms(replace(seen, draining=frozenset({"h1"})), POLICY, history, START + 60)
