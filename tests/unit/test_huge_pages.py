"""VMs in huge pages: pools that hosts have, and that no plan, cold move or failure may overdraw."""

import numpy as np
import pytest

from balancerd.adapters.libvirt.definition import Storage, vm_of
from balancerd.core.check import check
from balancerd.core.model import VM, Host, HugePages, Load, Method, Snapshot
from balancerd.core.moving.method import memory_in_use
from balancerd.core.observation import HostCounters
from balancerd.core.past.history import History
from balancerd.core.placing.constraints import Failover, refuses, violations
from balancerd.core.placing.survey import lay_out
from balancerd.core.plan import Move, Plan
from balancerd.core.planner.prices import move_prices
from balancerd.core.sensing.counters import seen_hosts
from balancerd.core.units import GIB, MIB
from tests.sites import NOW, changed, planned, policy, site, told

SMALL, BIG = 2 * MIB, GIB
HOT = "h1 10c 64G: a 5c 0G, b 4c 8G | h2 10c 64G: c 1c 8G | h3 10c 64G: d 1c 8G"


def paged(text: str, pools: dict[str, int], vms: dict[str, int], size: int = SMALL) -> Snapshot:
    """A site with pools of 2 MiB pages and VMs in them, both in GiB."""
    snapshot = site(text)
    for host, amount in pools.items():
        snapshot = changed(snapshot, host=host, huge_pages=(HugePages(SMALL, amount * GIB),))
    for vm, amount in vms.items():
        snapshot = changed(snapshot, vm=vm, huge_pages=(HugePages(size, amount * GIB),))
    return snapshot


def refused(snapshot: Snapshot, target: int) -> str:
    """Why a host would not take the first VM."""
    found = refuses(lay_out(snapshot, policy(), History(), NOW), 0, target)
    return f"{found.constraint}: {found.detail}; {found.remedy}" if found else ""


def test_a_host_without_enough_pages_refuses_with_numbers() -> None:
    """Dies if what is in use there is passed over, or pages of another size count."""
    snapshot = paged(HOT, {"h1": 16, "h2": 16, "h3": 16}, {"a": 12, "c": 8})
    assert refused(snapshot, 1) == (
        "huge pages: 20.0 GiB of at most 16.0 GiB in huge pages of 2.0 MiB; "
        "free 4.0 GiB of huge pages of 2.0 MiB on h2"
    )
    assert refused(snapshot, 2) == ""
    other = changed(snapshot, host="h3", huge_pages=(HugePages(BIG, 64 * GIB),))
    assert refused(other, 2).startswith("huge pages: 12.0 GiB of at most 0 B")


def test_pages_of_no_named_size_fit_into_any_pool() -> None:
    snapshot = paged(HOT, {"h1": 16, "h2": 8, "h3": 16}, {"a": 12}, size=0)
    assert refused(snapshot, 1).startswith("huge pages: 12.0 GiB of at most 8.0 GiB in huge pages;")
    assert refused(snapshot, 2) == ""


def test_what_moves_takes_its_pages_along() -> None:
    layout = lay_out(paged(HOT, {"h1": 16, "h2": 16}, {"a": 12}), policy(), History(), NOW)
    layout.copy().move(0, 1)
    assert layout.pools is not None
    assert layout.pools.used.tolist() == [[12 * GIB, 0, 0]], "a copy has pools of its own"
    layout.move(0, 1)
    assert layout.pools.used.tolist() == [[0, 12 * GIB, 0]]


def test_an_overloaded_host_is_relieved_to_where_the_pages_are() -> None:
    snapshot = paged(HOT, {"h1": 16, "h2": 8, "h3": 16}, {"a": 12})
    assert told(planned(snapshot, policy())) in (["a h1>h3"], ["b h1>h2"], ["b h1>h3"])
    only = changed(snapshot, vm="b", host_devices=("pci 0",))
    assert told(planned(only, policy())) == ["a h1>h3"]
    nowhere = changed(only, host="h3", huge_pages=())
    assert told(planned(nowhere, policy())) == []


@pytest.mark.parametrize(("free", "sound"), [(12, True), (11, False)])
def test_the_checker_counts_pages_at_the_target(free: int, sound: bool) -> None:
    """Dies without its check of pages."""
    snapshot = paged(HOT, {"h1": 16, "h2": 8 + free}, {"a": 12, "c": 8})
    move = Move(1, "a", "h1", "h2", Method.PRE_COPY, "")
    faults = check(snapshot, policy(), Plan(NOW, "", "", (move,), "", 0.0, 0.0)).violations
    assert bool(faults) is not sound
    assert all("huge pages of 2097152 bytes on h2" in fault for fault in faults)


def test_a_host_that_gives_more_pages_than_it_has_breaks_the_rule() -> None:
    snapshot = paged(HOT, {"h1": 8}, {"a": 12})
    assert [found.constraint for found in violations(snapshot, policy())] == ["huge pages"]
    assert violations(paged(HOT, {"h1": 12}, {"a": 12}), policy()) == ()


def test_vms_of_a_failed_host_need_pages_elsewhere() -> None:
    """Dies if only ordinary memory is looked at."""
    on = np.ones(3, dtype=np.bool_)
    for free, homeless in ((16, []), (8, [0])):
        snapshot = paged(HOT, {"h1": 16, "h3": free}, {"a": 12})
        layout = lay_out(snapshot, policy(), History(), NOW)
        assert Failover.of(layout).homeless(on, 1.0, 1.0) == homeless


def test_pages_are_sent_and_paid_for_like_other_memory() -> None:
    vm = VM("a", 4 * GIB, huge_pages=(HugePages(SMALL, 12 * GIB),))
    assert memory_in_use(vm, Load(1.0, 1.0, GIB)) == 13 * GIB
    assert memory_in_use(vm, None) == vm.all_memory == 16 * GIB
    snapshot = paged("h1 10c 64G: a 5c 4G, b 4c 16G | h2 10c 64G:", {}, {"a": 12})
    prices = move_prices(lay_out(snapshot, policy(), History(), NOW))
    assert prices[0] == prices[1]


def test_what_is_set_aside_for_pages_is_not_the_hosts_own_use() -> None:
    """A pool is never free, so it looked used, and VMs in it counted twice."""
    host = Host("h1", 8.0, 48 * GIB, cores=8, huge_pages=(HugePages(SMALL, 16 * GIB),))
    told = {"h1": (0.0, HostCounters(1.0, 64 * GIB, 46 * GIB))}
    seen, doubts = seen_hosts(told, {"h1": host})
    assert doubts == {}
    assert seen.memory.tolist() == [2 * GIB]


def test_a_definition_parts_memory_into_ordinary_and_huge_pages() -> None:
    pages = "<page size='2048' unit='KiB' nodeset='1'/>"
    cells = "<cell id='0' memory='1' unit='GiB'/><cell id='1' memory='3' unit='GiB'/>"
    document = (
        "<domain><name>a</name><memory unit='GiB'>4</memory><vcpu>1</vcpu>"
        f"<memoryBacking><hugepages>{pages}</hugepages></memoryBacking>"
        f"<cpu><numa>{cells}</numa></cpu></domain>"
    )
    vm = vm_of(document, Storage())
    assert (vm.memory, vm.huge_pages) == (GIB, (HugePages(SMALL, 3 * GIB),))
    assert vm_of(document.replace(">4<", ">1<"), Storage()).memory == 0
