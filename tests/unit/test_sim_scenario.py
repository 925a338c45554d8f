"""Scenario files: the schema, what is built from one, and those that ship."""

from pathlib import Path

import numpy as np
import pytest

import balancerd.adapters.sim
from balancerd.adapters.sim.load import LoadError, Table
from balancerd.adapters.sim.scenario import Scenario
from balancerd.adapters.sim.site import ScenarioError, Site, build
from balancerd.documents import DocumentError, load, parse
from tests.worlds import VM_MEMORY, a_flavour, a_host_group, a_scenario

CLASSIC = Path(__file__).parents[2] / "benchmarks" / "classic.toml"
DEMO = Path(balancerd.adapters.sim.__file__).with_name("demo.toml")
SMALL = """\
name = "small"
start = "2026-03-02T00:00:00+01:00"
duration = "1h"

[[hosts]]
name = "h%d"
count = 2
cores = 4
memory = "8 GiB"

[[flavours]]
cpu = 1
memory = "1 GiB"
count = 3
"""


def a_trace(directory: Path, vms: int) -> Path:
    for number in range(vms):
        (directory / f"vm{number:03}").write_text("10\n" * 288)
    return directory


def test_the_classic_site_is_the_published_one(tmp_path: Path) -> None:
    """Numbers from the published set-up, written out once more."""
    site = build(load(CLASSIC, Scenario), a_trace(tmp_path, 10))
    assert [host.name for host in site.hosts] == [f"h{number:03}" for number in range(800)]
    g4, g5 = site.hosts[0], site.hosts[1]
    assert (g4.cpu, g5.cpu, g4.cores) == (2 * 1.86, 2 * 2.66, 2)
    assert [g4.watts(u) for u in (0, 0.5, 1)] == [86, 102, 117]
    assert [g5.watts(u) for u in (0, 0.45, 1)] == [93.7, pytest.approx(113), 135]
    assert [vm.size for vm in site.vms] == [2.5] * 3 + [2.0] * 3 + [1.0] * 3 + [0.5]
    megabytes = [870] * 3 + [1740] * 6 + [613]
    assert [vm.memory for vm in site.vms] == [size * 10**6 for size in megabytes]
    assert {link.bandwidth for link in site.links} == {125e6}
    assert site.scenario.migration.bandwidth == 62_500_000
    assert len(site.links) == 800


def test_the_classic_placement_fits_by_what_is_asked_for_and_by_memory_where_that_counts(
    tmp_path: Path,
) -> None:
    trace = a_trace(tmp_path, 1052)
    free = load(CLASSIC, Scenario)
    for scenario in (free, free.model_copy(update={"memory": "enforced"})):
        site = build(scenario, trace)
        cpu, memory = np.zeros(800), np.zeros(800)
        for vm, host in zip(site.vms, site.placement, strict=True):
            cpu[host] += vm.size
            memory[host] += vm.memory
        assert (cpu <= [host.cpu + 1e-9 for host in site.hosts]).all()
        if scenario.memory == "enforced":
            assert (memory <= 4096e6).all()
            assert {host.memory for host in site.hosts} == {4096 * 10**6}
    assert {host.memory for host in build(free, trace).hosts} == {2 * sum_of_memory(site)}


def sum_of_memory(site: Site) -> int:
    return sum(vm.memory for vm in site.vms)


def test_the_demo_is_what_the_readme_says() -> None:
    site = build(load(DEMO, Scenario))
    assert (len(site.hosts), len({host.rack for host in site.hosts}), len(site.vms)) == (40, 4, 400)
    assert all(host.power_curve for host in site.hosts)


def test_a_small_file_has_sensible_defaults() -> None:
    scenario = parse(SMALL, Scenario, "small.toml")
    site = build(scenario)
    assert [vm.name for vm in site.vms] == ["vm000", "vm001", "vm002"]
    assert (scenario.cycle, scenario.memory, scenario.load.step) == (60.0, "enforced", 300.0)
    assert isinstance(site.load, Table)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("count = 2", "count = 0"), "small.toml:7: hosts[0].count: must be at least 1, not 0"),
        (('"h%d"', '"h"'), "small.toml:6: hosts[0].name: "),
        (('"8 GiB"', "8"), "small.toml:9: hosts[0].memory: "),
        (("cores", "coers"), 'unknown key (did you mean "cores"?)'),
        (('"1h"', '"1 hour"'), "small.toml:3: duration: "),
        (("+01:00", ""), "small.toml:2: start: "),
        (('memory = "1 GiB"', 'memory = "1 GiB"\ndirty_rate = "x"'), "flavours[0].dirty_rate"),
        (("count = 3", ""), "generated load needs vms.count"),
        (("[[hosts]]", '[[faults]]\nkind = "fire"\n[[hosts]]'), "faults[0].kind: must be one of"),
        (
            ("[[hosts]]", '[[faults]]\nkind = "host-crash"\nat = "1h"\nper_day = 1\n[[hosts]]'),
            "either at or per_day",
        ),
        (("[[hosts]]", '[[faults]]\nkind = "host-crash"\n[[hosts]]'), "needs at or per_day"),
    ],
)
def test_a_wrong_file_is_told_with_line_and_key(change: tuple[str, str], complaint: str) -> None:
    with pytest.raises(DocumentError) as error:
        parse(SMALL.replace(*change), Scenario, "small.toml")
    assert complaint in str(error.value)


def test_two_hosts_of_one_name_are_refused() -> None:
    with pytest.raises(ScenarioError, match="two hosts have one name"):
        build(a_scenario(hosts=[a_host_group(), a_host_group()]))


def test_a_fault_of_an_unknown_host_is_refused() -> None:
    fault = {"kind": "host-crash", "host": "a9", "at": 60.0}
    with pytest.raises(ScenarioError, match='"a9"'):
        build(a_scenario(faults=[fault]))


def test_a_vm_larger_than_any_host_is_refused() -> None:
    with pytest.raises(ScenarioError, match="v0: fits on no host"):
        build(a_scenario(flavours=[a_flavour(cpu=5.0)]))


def test_a_trace_of_another_number_of_vms_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="asks for 2 VMs, but its load is for 3"):
        build(a_scenario(), a_trace(tmp_path, 3))


def test_a_trace_scenario_without_a_trace_says_how_to_give_one() -> None:
    with pytest.raises(ScenarioError, match="--trace DIR"):
        build(load(CLASSIC, Scenario))


def test_a_trace_shorter_than_the_scenario_is_refused(tmp_path: Path) -> None:
    day_and_a_half = a_scenario(duration=129_600.0, flavours=[a_flavour()])
    with pytest.raises(LoadError, match="vm000:289: is missing"):
        build(day_and_a_half, a_trace(tmp_path, 2))


def test_vms_start_where_they_leave_a_host_fullest_largest_first() -> None:
    """5 on the first host; 3 fits there too (8 in all); then 2 opens the second, 1 joins it."""
    flavours = [a_flavour(cpu=cpu, count=1, memory=1) for cpu in (1.0, 5.0, 2.0, 3.0)]
    site = build(a_scenario(hosts=[a_host_group(cores=8)], flavours=flavours, vms={}))
    assert site.placement == (1, 0, 1, 0)


def test_an_empty_host_is_opened_where_a_watt_does_most() -> None:
    hosts = [a_host_group(count=1), a_host_group(name="b%d", count=1, power_curve=[50.0, 150.0])]
    assert set(build(a_scenario(hosts=hosts)).placement) == {1}


def test_a_site_that_grew_without_a_plan_is_the_same_for_the_same_seed() -> None:
    """Random, within memory, and with no regard to CPU."""

    def placed(seed: int) -> tuple[int, ...]:
        rule = {"rule": "random", "memory_limit": 0.5, "seed": seed}
        group = a_host_group(memory=4 * VM_MEMORY)
        many = a_scenario(hosts=[group], placement=rule, vms={"name": "v%d", "count": 6})
        return build(many).placement

    assert placed(1) == placed(1)
    assert len({placed(seed) for seed in range(10)}) > 5
    assert all(placed(seed).count(host) == 2 for seed in range(10) for host in range(3))
