"""A cluster file that was written quickly is the one that was written slowly."""

import json
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancerd.core.files.cluster_file import cluster_file
from balancerd.core.files.cluster_text import ClusterWriter
from balancerd.core.model import Cluster, Host, Snapshot
from tests.property.drawn import snapshots

_BAD = st.sampled_from([float("nan"), float("inf"), -0.0])


def written(writer: ClusterWriter, snapshot: Snapshot) -> None:
    """Both ways say the same, to the last digit of every number."""
    slow = json.loads(json.dumps(cluster_file(snapshot)))
    assert json.loads(writer.text(snapshot)) == slow


@given(st.lists(snapshots(), min_size=1, max_size=3))
def test_one_writer_writes_many_sites_as_each_by_itself(drawn: list[Snapshot]) -> None:
    """Dies when a definition is kept by its name alone, though it is another one now."""
    writer = ClusterWriter()
    for snapshot in drawn:
        written(writer, snapshot)


@given(snapshots(), st.data())
def test_what_changed_of_a_definition_is_written_anew(
    snapshot: Snapshot, data: st.DataObject
) -> None:
    writer, cluster = ClusterWriter(), snapshot.cluster
    written(writer, snapshot)
    if not cluster.vms:
        return
    name = data.draw(st.sampled_from(sorted(cluster.vms)))
    vm = replace(cluster.vms[name], memory=cluster.vms[name].memory + 1)
    vms = MappingProxyType({**cluster.vms, name: vm})
    written(writer, replace(snapshot, cluster=replace(cluster, vms=vms)))


@given(snapshots(), _BAD, st.sampled_from(["cpu", "cpu_mean", "steal", "since", "network"]))
def test_numbers_that_json_does_not_know_are_written_as_ever(
    snapshot: Snapshot, bad: float, field: str
) -> None:
    """Dies when the columns are written whatever is in them: JSON has no word for NaN."""
    change: dict[str, Any] = {field: bad}
    loads = {name: replace(load, **change) for name, load in snapshot.loads.items()}
    if field in ("since", "network") and bad != 0.0:
        return  # a time that is none cannot be written either way; a rate of NaN is not known
    written(ClusterWriter(), replace(snapshot, loads=loads))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_overhead_that_is_no_number_is_written_as_ever(bad: float) -> None:
    snapshot = Snapshot(
        0.0, Cluster({"h": Host("h", 1.0, 1)}, {}, {}), {}, {}, {}, overhead={"h": (bad, 1)}
    )
    written(ClusterWriter(), snapshot)
