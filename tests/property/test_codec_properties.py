"""Whatever a value holds, JSON gives it back.

Times are drawn to the millisecond and downtimes to the microsecond, which is what the files keep.
"""

import json
import re
from dataclasses import fields
from typing import Any, get_type_hints

from hypothesis import given, settings
from hypothesis import strategies as st

from balancerd.core.files.cluster_file import cluster_file, parse_cluster_file, snapshot_of
from balancerd.core.files.codec import CodecError, decode, encode
from balancerd.core.files.plan_document import plan_document, plan_of
from balancerd.core.lessons import Basis
from balancerd.core.model import (
    VM,
    Cluster,
    Disk,
    Exclusion,
    Forecast,
    Gap,
    Host,
    Link,
    Load,
    NumaNode,
    Snapshot,
    SplitBrain,
)
from balancerd.core.plan import (
    Assessment,
    Certificate,
    HostFigures,
    Move,
    Plan,
    Refusal,
    Sleep,
    Wake,
)

EXAMPLES = settings(max_examples=40, deadline=None)
TIMES = st.integers(0, 4 * 10**12).map(lambda milliseconds: milliseconds / 1000)
DOWNTIMES = st.integers(0, 10**9).map(lambda microseconds: microseconds / 10**6)
NUMBERS = st.floats(allow_nan=False)
NAMES = st.text(max_size=6)

st.register_type_strategy(float, NUMBERS)


def whole(kind: type, **known: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Values of a dataclass with every field drawn, those with a default too."""
    hints = get_type_hints(kind)
    drawn = {field.name: st.from_type(hints[field.name]) for field in fields(kind)}
    return st.builds(kind, **(drawn | known))


for _kind in (NumaNode, Disk):
    st.register_type_strategy(_kind, whole(_kind))
HOSTS, VMS, LINKS, FORECASTS = whole(Host), whole(VM), whole(Link), whole(Forecast)
GAPS, EXCLUSIONS, SPLIT_BRAINS = whole(Gap, since=TIMES), whole(Exclusion), whole(SplitBrain)
LOADS = whole(Load, since=TIMES)
BASES = whole(Basis, model_downtime=DOWNTIMES)
MOVES = whole(Move, downtime=DOWNTIMES, basis=BASES)
ACTIONS = st.one_of(MOVES, whole(Sleep), whole(Wake))


def through_json(data: Any) -> Any:
    return json.loads(json.dumps(data, allow_nan=False))


@EXAMPLES
@given(
    st.one_of(
        *(HOSTS, VMS, LINKS, LOADS, FORECASTS, GAPS, EXCLUSIONS, SPLIT_BRAINS, MOVES),
        *(whole(Assessment), whole(Certificate), whole(Refusal), whole(HostFigures)),
    )
)
def test_a_value_comes_back_from_json_as_it_was(value: Any) -> None:
    """Kills: defaults left out where they are not the default, NaN and infinity as bare words."""
    assert decode(type(value), through_json(encode(value))) == value


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """Any hosts and VMs; beside each what a snapshot may, but need not, know of it."""
    hosts = {host.name: host for host in draw(st.lists(HOSTS, max_size=4))}
    vms = {vm.name: vm for vm in draw(st.lists(VMS, max_size=6))}

    def some(of: dict[str, Any], values: st.SearchStrategy[Any]) -> Any:
        return draw(st.dictionaries(st.sampled_from(sorted(of)), values)) if of else {}

    place = st.sampled_from(sorted(hosts)) if hosts else st.nothing()
    return Snapshot(
        at=draw(TIMES),
        cluster=Cluster(
            hosts,
            vms,
            some(vms, place) if hosts else {},
            some(vms, place) if hosts else {},
            tuple(draw(st.lists(LINKS, max_size=2))),
            some(vms, st.lists(st.integers(0, 7), min_size=1, max_size=2).map(tuple)),
        ),
        loads=some(vms, LOADS),
        host_loads=some(hosts, LOADS),
        forecasts=some(vms, FORECASTS),
        overhead=some(hosts, st.tuples(NUMBERS, st.integers(0))),
        gaps=tuple(draw(st.lists(GAPS, max_size=2))),
        exclusions=tuple(draw(st.lists(EXCLUSIONS, max_size=2))),
        split_brains=tuple(draw(st.lists(SPLIT_BRAINS, max_size=1))),
        draining=draw(st.frozensets(NAMES, max_size=2)),
    )


@EXAMPLES
@given(snapshots())
def test_a_cluster_file_gives_back_the_snapshot_and_its_order(snapshot: Snapshot) -> None:
    """Kills: placements and flights exchanged, an overhead of zero dropped, hosts sorted."""
    read = snapshot_of(through_json(cluster_file(snapshot)))
    assert read == snapshot
    assert list(read.cluster.hosts) == list(snapshot.cluster.hosts)
    assert list(read.cluster.vms) == list(snapshot.cluster.vms)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Actions of all kinds, numbered in order."""
    actions = draw(st.lists(ACTIONS, max_size=5))
    numbered = tuple(
        decode(type(action), {**encode(action), "number": number})
        for number, action in enumerate(actions, 1)
    )
    few = {
        "assessments": st.lists(whole(Assessment), max_size=2).map(tuple),
        "before": st.lists(whole(HostFigures), max_size=2).map(tuple),
        "after": st.lists(whole(HostFigures), max_size=2).map(tuple),
        "refusals": st.lists(whole(Refusal), max_size=2).map(tuple),
        "certificate": st.none() | whole(Certificate),
    }
    plan: Plan = draw(whole(Plan, at=TIMES, actions=st.just(numbered), **few))
    return plan


@EXAMPLES
@given(plans())
def test_a_plan_document_gives_back_the_plan(plan: Plan) -> None:
    """Kills: moves and power actions put together out of their order."""
    assert plan_of(through_json(plan_document(plan))) == plan


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(snapshots(), st.data())
def test_a_spoilt_cluster_file_is_refused_in_one_line_or_read(
    snapshot: Snapshot, data: st.DataObject
) -> None:
    """Kills: an entry taken for a table, a list for a number, before it was looked at."""
    document = through_json(cluster_file(snapshot))
    lists = [document[key] for key in ("hosts", "vms", "gaps") if document[key]]
    target = data.draw(st.sampled_from([document, *(entry for items in lists for entry in items)]))
    target[data.draw(st.sampled_from(sorted(target)))] = data.draw(JSON)
    text = json.dumps(document, indent=1, allow_nan=True)
    try:
        parse_cluster_file(text, "site.json")
    except CodecError as error:
        assert "\n" not in str(error)
        assert re.match(r"site\.json:\d+: ", str(error))
