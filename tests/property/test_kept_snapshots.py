"""A snapshot that was kept in the ledger is given back to the last digit."""

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancerd.adapters.sqlite.packing import pack, unpack
from balancerd.adapters.sqlite.snapshots import Packer, snapshot_of
from balancerd.core.model import Cluster, Host, Link, Load, PowerState, Snapshot
from balancerd.ports import LedgerError
from tests.property.drawn import snapshots

_BAD = st.sampled_from([float("nan"), float("inf"), -0.0])


def kept(packer: Packer, snapshot: Snapshot) -> None:
    """What is read says the same as what was written, in the same order."""
    read = snapshot_of(*packer.pack(snapshot))
    assert repr(plain(read)) == repr(plain(snapshot))  # NaN is not equal to itself


def plain(snapshot: Snapshot) -> list[Any]:
    """All that a snapshot says, in its order, whatever kind of mapping says it."""
    cluster = snapshot.cluster
    parts = (cluster.hosts, cluster.vms, cluster.placement, cluster.flights, cluster.landing)
    tables = (snapshot.loads, snapshot.host_loads, snapshot.forecasts, snapshot.overhead)
    alone = (snapshot.gaps, snapshot.exclusions, snapshot.split_brains, sorted(snapshot.draining))
    by_name = [sorted(dict(one).items()) for one in (*parts, *tables)]
    return [snapshot.at, list(cluster.hosts), list(cluster.vms), cluster.links, alone, by_name]


@given(st.lists(snapshots(), min_size=1, max_size=3))
def test_one_packer_packs_many_sites_as_each_by_itself(drawn: list[Snapshot]) -> None:
    """Dies when a definition is kept by its name alone, though it is another one now."""
    packer = Packer()
    for snapshot in drawn:
        kept(packer, snapshot)


@given(snapshots(), st.data())
def test_what_changed_of_a_definition_is_written_anew(
    snapshot: Snapshot, data: st.DataObject
) -> None:
    """Dies when the lines that are known are not looked up by what they are the lines of."""
    packer, cluster = Packer(), snapshot.cluster
    kept(packer, snapshot)
    if not cluster.vms:
        return
    name = data.draw(st.sampled_from(sorted(cluster.vms)))
    vm = replace(cluster.vms[name], memory=cluster.vms[name].memory + 1)
    vms = MappingProxyType({**cluster.vms, name: vm})
    kept(packer, replace(snapshot, cluster=replace(cluster, vms=vms)))


@given(snapshots(), st.sampled_from(PowerState))
def test_a_host_whose_power_changes_is_kept_with_its_power(
    snapshot: Snapshot, power: PowerState
) -> None:
    """Dies when the power is written with a definition that is taken for the same."""
    packer, cluster = Packer(), snapshot.cluster
    kept(packer, snapshot)
    hosts = {name: replace(host, power=power) for name, host in cluster.hosts.items()}
    kept(packer, replace(snapshot, cluster=replace(cluster, hosts=hosts)))


@given(snapshots(), _BAD, st.sampled_from(["cpu", "cpu_mean", "steal", "since"]))
def test_numbers_that_json_does_not_know_are_kept_too(
    snapshot: Snapshot, bad: float, field: str
) -> None:
    change: dict[str, Any] = {field: bad}
    loads = {name: replace(load, **change) for name, load in snapshot.loads.items()}
    kept(Packer(), replace(snapshot, loads=loads))


def test_a_site_of_thousands_is_kept_in_its_order() -> None:
    """Dies when blocks of definitions are put together in another order than that of the names."""
    hosts = {f"h{n}": Host(f"h{n}", float(n), n) for n in range(2500)}
    links = tuple(Link(f"h{n}", "core", 1.0) for n in (0, 0, 1, 2))
    loads = {f"h{n}": Load(n / 7, n / 3, n) for n in range(0, 2500, 2)}
    kept(Packer(), Snapshot(0.1, Cluster(hosts, {}, {}, links=links), {}, loads, {}))


def test_figures_of_what_the_site_has_not_are_not_kept() -> None:
    cluster, nobody = Cluster({"h": Host("h", 1.0, 1)}, {}, {"v": "h"}), {"x": Load(1.0, 1.0, 1)}
    snapshot = Snapshot(0.0, cluster, nobody, nobody, {}, overhead={"x": (1.0, 1)})
    read = snapshot_of(*Packer().pack(snapshot))
    assert not read.loads and not read.host_loads and not read.overhead
    assert not read.cluster.placement


def test_columns_of_every_kind_come_back() -> None:
    columns = {
        "real": np.array([1.5, float("nan"), -0.0]),
        "whole": np.array([2**53 + 1, -1]),
        "small": np.array([-1, 7], dtype=np.int32),
        "true": np.array([True, False]),
        "none": np.empty(0),
    }
    head, found = unpack(pack({"a": [1, "x\n"]}, columns))
    assert head == {"a": [1, "x\n"]}
    assert {name: (c.dtype, repr(c.tolist())) for name, c in found.items()} == {
        name: (c.dtype, repr(c.tolist())) for name, c in columns.items()
    }


@pytest.mark.parametrize("cut", [0, 1, 20, -1])
def test_a_document_that_is_cut_short_is_one_sentence(cut: int) -> None:
    figures, definitions = Packer().pack(Snapshot(0.0, Cluster({}, {}, {}), {}, {}, {}))
    with pytest.raises(LedgerError, match="a document in the ledger is damaged"):
        snapshot_of(figures[:cut], definitions)
