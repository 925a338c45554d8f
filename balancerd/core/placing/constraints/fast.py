"""The rules as planning uses them: which hosts would refuse a block, for many hosts at once.

Each check is a row of `CHECKS`: its name, the hosts that refuse, and how to say so of one host.
A check looks only at what the block would do to its target, so a host which already breaks a rule
can always be relieved.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from balancerd.core.model import PowerState
from balancerd.core.placing.layout import Bools, Ints, Layout
from balancerd.core.placing.needs import lacks
from balancerd.core.plan import Refusal
from balancerd.core.policies.rule import matches
from balancerd.core.policies.tables import Band
from balancerd.core.units import format_size, format_time

EPSILON = 1e-9
# Checks that say that a host is too full as a whole: a search makes room there, but not on nodes.
ROOM = frozenset({"memory", "CPU", "busy"})
Explanation = tuple[str, str]  # detail, remedy
Rows = Ints | int  # hosts, or one of them: many small arrays of one element would be slow


@dataclass(frozen=True, slots=True)
class Check:
    """One rule: `refused(layout, block, rows)` for the hosts in `rows`, `explain` for one host.

    Where a site has nothing of what it is about (`only`), it is not asked.
    """

    name: str
    refused: Callable[[Layout, int, Rows], Bools]
    explain: Callable[[Layout, int, int], Explanation]
    only: str = ""

    def refusal(self, layout: Layout, block: int, host: int) -> Refusal:
        """Why the host, which refuses the block, does so."""
        names = layout.blocks[block][0], layout.hosts[host]
        return Refusal(*names, self.name, *self.explain(layout, block, host))


def accepts(layout: Layout, block: int, rows: Ints | None = None) -> Bools:
    """Which of the hosts would take the block now; its own host never does."""
    rows = np.arange(len(layout.hosts), dtype=np.int64) if rows is None else rows
    accepted = np.ones(len(rows), dtype=np.bool_)
    for check in _at_stake(layout):
        accepted &= ~check.refused(layout, block, rows)
    return accepted


def refuses(layout: Layout, block: int, host: int) -> Refusal | None:
    """Why a host would not take a block; None if it would."""
    for check in _at_stake(layout):
        if check.refused(layout, block, host):
            return check.refusal(layout, block, host)
    return None


def unopposed(layout: Layout, blocks: Ints, targets: Ints) -> Bools:
    """Which of these blocks would be taken by their targets whatever else of them went before.

    Judged with all of them there and nobody gone: what is not unopposed has to be asked about in
    its turn. So has a block of which rules say more than where it may be, and what has room there.
    """
    crowd = layout.copy()
    for used, by in crowd.demands():
        np.add.at(used, targets, by[blocks])
    there = layout.receives[targets] & layout.reachable[layout.signature[blocks], targets]
    there &= layout.place[blocks] != targets
    plain = np.bincount(blocks, minlength=len(layout.blocks)) == 1
    plain[[*layout.groups_of, *layout.returning, *layout.objected]] = False
    if layout.barred or layout.nodes is not None or layout.pools is not None:
        plain[:] = False
    return np.asarray(_within_limits(crowd)[targets] & there & plain[blocks])


def _within_limits(layout: Layout) -> Bools:
    """Hosts that carry no more than the checks below let them, without a tolerance."""
    bands, capacity = layout.policy.thresholds, layout.policy.capacity
    spread = layout.factor * np.sqrt(layout.used_variance)
    within = layout.used_cpu + spread <= bands.cpu.landing * layout.cpu_capacity
    within &= layout.used_now <= bands.cpu.release * layout.cpu_capacity
    within &= layout.used_vcpus <= layout.vcpu_capacity
    if capacity.enforce_memory:
        within &= layout.used_memory <= bands.memory.landing * layout.memory_capacity
    if capacity.vms_per_host is not None:
        within &= layout.used_count <= capacity.vms_per_host
    return np.asarray(within)


def forbidding(layout: Layout, block: int, host: int) -> Check | None:
    """The first rule by which a host would not take a block however much room it had; or None."""
    for check in _at_stake(layout):
        if check.name not in ROOM and check.refused(layout, block, host):
            return check
    return None


def all_refusals(layout: Layout, block: int, host: int) -> tuple[Refusal, ...]:
    """Everything that keeps a block off a host, not only the first."""
    return tuple(
        check.refusal(layout, block, host)
        for check in _at_stake(layout)
        if check.refused(layout, block, host)
    )


def refusing(layout: Layout, block: int, rows: Ints) -> dict[str, Ints]:
    """The hosts that refuse, by the first check that does."""
    left, counted = rows, {}
    for check in _at_stake(layout):
        refused = check.refused(layout, block, left)
        if refused.any():
            counted[check.name] = left[refused]
        left = left[~refused]
    return counted


def _same_host(layout: Layout, block: int, rows: Rows) -> Bools:
    return np.asarray(rows == layout.place[block])


def _explain_same_host(layout: Layout, _block: int, host: int) -> Explanation:
    return f"it is on {layout.hosts[host]}", ""


def _closed(layout: Layout, _block: int, rows: Rows) -> Bools:
    return ~layout.receives[rows]


def _explain_closed(layout: Layout, _block: int, host: int) -> Explanation:
    name = layout.hosts[host]
    power = layout.snapshot.cluster.hosts[name].power
    if power is not PowerState.ON:
        return f"{name} is {power}", f"wake {name}"
    if name in layout.snapshot.draining:
        return f"{name} is draining", f"undrain {name}"
    gaps = [gap.kind for gap in layout.snapshot.gaps if gap.name == name]
    return f"{name} takes no VMs: {', '.join(gaps) or 'excluded or without capacity'}", ""


def _unreachable(layout: Layout, block: int, rows: Rows) -> Bools:
    return np.asarray(~layout.reachable[layout.signature[block], rows])


def _explain_unreachable(layout: Layout, block: int, host: int) -> Explanation:
    """Which rule, or what the host lacks; the slow way, for one host."""
    name = layout.hosts[host]
    for rule in layout.rules:
        if rule.weight is None and any(matches(vm, rule.vms) for vm in layout.blocks[block]):
            inside = matches(name, rule.hosts)
            if inside if rule.kind == "avoid" else rule.kind in ("pin", "one-of") and not inside:
                return f"{rule.name} keeps it off {name}", "change the rule"
            if rule.kind == "exclude" and inside:
                return f"{rule.name}: it is excluded on {name}", "change the rule"
    needs = layout.needs[layout.signature[block]]
    missing = lacks(layout.snapshot.cluster.hosts[name], needs)
    remedy = "set a CPU model" if needs.same_cpu is not None else ""
    return f"{name} does not have {missing}", remedy


def _conflicts(layout: Layout, block: int, rows: Rows) -> Bools:
    """Hosts in whose domain as many members of an "apart" group are, or will be, as may be."""
    refused = np.zeros(np.shape(rows), dtype=np.bool_)
    for index, own in layout.groups_of.get(block, ()):
        group = layout.groups[index]
        if group.kind == "apart":
            refused |= _crowds(layout, block, index, own)[layout.domains[group.scope][rows]]
    return refused


def _crowds(layout: Layout, block: int, index: int, own: int) -> Bools:
    """By domain of an "apart" group: whether there is no room for the block's members."""
    group = layout.groups[index]
    counts = others_of(layout, block, index, own)
    coming = 1 if group.at_most == 1 else own  # a pair that is together now is so anywhere
    return np.asarray(counts + coming > group.at_most)


def others_of(layout: Layout, block: int, index: int, own: int) -> Ints:
    """How many members of a group are in each of its domains, the block's own left out."""
    domains = layout.domains[layout.groups[index].scope]
    counts = np.zeros(len(layout.hosts), dtype=np.int64)
    for domain, count in layout.present[index].items():
        counts[domain] = count
    counts[domains[layout.place[block]]] -= own
    return counts


def _explain_conflict(layout: Layout, block: int, host: int) -> Explanation:
    for index, own in layout.groups_of[block]:
        group = layout.groups[index]
        domain = layout.domains[group.scope][host]
        if group.kind == "apart" and _crowds(layout, block, index, own)[domain]:
            there = int(others_of(layout, block, index, own)[domain])
            others = "another member is" if there == 1 else f"{there} other members are"
            return f"{group.name}: {others} in that {group.scope}", "move that one first"
    return "another member is there", ""


def _scatters(layout: Layout, block: int, rows: Rows) -> Bools:
    """Hosts where a member of a "together" group has fewer of the others around it than here.

    What is alone, though there are others, only goes where one of them is. What others have joined
    on its host stays: once they are there they are one block, which these blocks do not know yet.
    """
    refused = np.zeros(np.shape(rows), dtype=np.bool_)
    for index, own in layout.groups_of.get(block, ()):
        group = layout.groups[index]
        if group.kind != "together":
            continue
        domains = layout.domains[group.scope]
        counts = others_of(layout, block, index, own)
        around = int(counts[domains[layout.place[block]]])
        wanted = max(around, min(int(counts.sum()), 1))
        refused |= (counts[domains[rows]] < wanted) | (around > 0 and group.scope == "host")
    return refused


def _explain_scatter(layout: Layout, block: int, _host: int) -> Explanation:
    names = [
        layout.groups[i].name
        for i, _ in layout.groups_of[block]
        if layout.groups[i].kind == "together"
    ]
    return f"{', '.join(names)}: others of the group are elsewhere", "move the whole group"


def _barred(layout: Layout, block: int, rows: Rows) -> Bools:
    until = layout.barred.get(int(layout.place[block]))
    return np.isin(rows, list(until)) if until else np.zeros(np.shape(rows), dtype=np.bool_)


def _explain_barred(layout: Layout, block: int, host: int) -> Explanation:
    source = int(layout.place[block])
    until = format_time(round(layout.barred[source][host]))
    return f"moves from {layout.hosts[source]} failed; the pair rests until {until}", ""


def _returns(layout: Layout, block: int, rows: Rows) -> Bools:
    until = layout.returning.get(block)
    return np.isin(rows, list(until)) if until else np.zeros(np.shape(rows), dtype=np.bool_)


def _explain_return(layout: Layout, block: int, host: int) -> Explanation:
    until = format_time(round(layout.returning[block][host]))
    return f"it came from {layout.hosts[host]}, and does not go back before {until}", ""


def _objects(layout: Layout, block: int, rows: Rows) -> Bools:
    said = layout.objected.get(block)
    return np.isin(rows, list(said)) if said else np.zeros(np.shape(rows), dtype=np.bool_)


def _explain_objection(layout: Layout, block: int, host: int) -> Explanation:
    return str(layout.objected[block][host]), ""


def _memory_short(layout: Layout, block: int, rows: Rows) -> Bools:
    if not layout.policy.capacity.enforce_memory:
        return np.zeros(np.shape(rows), dtype=np.bool_)
    band: Band = layout.policy.thresholds.memory
    after = layout.used_memory[rows] + layout.memory[block]
    return np.asarray(after > band.landing * layout.memory_capacity[rows] * (1 + EPSILON))


def _explain_memory(layout: Layout, block: int, host: int) -> Explanation:
    landing = layout.policy.thresholds.memory.landing * layout.memory_capacity[host]
    after = layout.used_memory[host] + layout.memory[block]
    short = f"free {format_size(after - landing)} of memory on {layout.hosts[host]}"
    return f"{format_size(after)} of at most {format_size(landing)}", short


def _cpu_short(layout: Layout, block: int, rows: Rows) -> Bools:
    landing = layout.policy.thresholds.cpu.landing * layout.cpu_capacity[rows]
    spread = np.sqrt(layout.used_variance[rows] + layout.variance[block])
    after = layout.used_cpu[rows] + layout.cpu[block] + layout.factor * spread
    return np.asarray(after > landing * (1 + EPSILON))


def _explain_cpu(layout: Layout, block: int, host: int) -> Explanation:
    landing = layout.policy.thresholds.cpu.landing * layout.cpu_capacity[host]
    spread = np.sqrt(layout.used_variance[host] + layout.variance[block])
    after = layout.used_cpu[host] + layout.cpu[block] + layout.factor * spread
    short = f"free {after - landing:.2f} cores on {layout.hosts[host]}"
    return f"{after:.2f} of at most {landing:.2f} cores expected", short


def _vcpus_short(layout: Layout, block: int, rows: Rows) -> Bools:
    after = layout.used_vcpus[rows] + layout.vcpus[block]
    return np.asarray(after > layout.vcpu_capacity[rows] * (1 + EPSILON))


def _explain_vcpus(layout: Layout, block: int, host: int) -> Explanation:
    after = layout.used_vcpus[host] + layout.vcpus[block]
    room = layout.vcpu_capacity[host]
    return f"{after:g} of at most {room:g} vCPUs", "raise capacity.cpu_overcommit"


def _too_many(layout: Layout, block: int, rows: Rows) -> Bools:
    most = layout.policy.capacity.vms_per_host
    if most is None:
        return np.zeros(np.shape(rows), dtype=np.bool_)
    return np.asarray(layout.used_count[rows] + len(layout.blocks[block]) > most)


def _explain_too_many(layout: Layout, block: int, host: int) -> Explanation:
    after = layout.used_count[host] + len(layout.blocks[block])
    most = layout.policy.capacity.vms_per_host
    return f"{after} of at most {most} VMs", "raise capacity.vms_per_host"


def _nodes_short(layout: Layout, block: int, rows: Rows) -> Bools:
    """Hosts without NUMA nodes that have room for the block's VMs that are bound to nodes."""
    if layout.nodes is None:
        return np.zeros(np.shape(rows), dtype=np.bool_)
    return ~layout.nodes.takes(block, rows)


def _explain_nodes(layout: Layout, block: int, host: int) -> Explanation:
    shares = layout.nodes.shares[block] if layout.nodes else ()
    wanted = ", ".join(
        f"{share.span} with {share.vcpus:g} vCPUs and {format_size(share.memory)}"
        for share in shares
    )
    return f"no NUMA nodes of {layout.hosts[host]} have room for {wanted}", "free a node"


def _pages_short(layout: Layout, block: int, rows: Rows) -> Bools:
    if layout.pools is None:
        return np.zeros(np.shape(rows), dtype=np.bool_)
    return ~layout.pools.takes(block, rows)


def _explain_pages(layout: Layout, block: int, host: int) -> Explanation:
    lacking = layout.pools.lacking(block, host) if layout.pools else None
    if lacking is None:
        return "", ""
    size, after, most = lacking
    kind = f"huge pages of {format_size(size)}" if size else "huge pages"
    short = f"free {format_size(after - most)} of {kind} on {layout.hosts[host]}"
    return f"{format_size(after)} of at most {format_size(most)} in {kind}", short


def _busy(layout: Layout, block: int, rows: Rows) -> Bools:
    """Hosts that the block would bring over `release` at this moment, whatever is expected."""
    release = layout.policy.thresholds.cpu.release * layout.cpu_capacity[rows]
    return np.asarray(layout.used_now[rows] + layout.now[block] > release * (1 + EPSILON))


def _explain_busy(layout: Layout, block: int, host: int) -> Explanation:
    share = (layout.used_now[host] + layout.now[block]) / layout.cpu_capacity[host]
    release = layout.policy.thresholds.cpu.release
    return f"its CPU would be at {share:.0%} now, over {release:.0%}", ""


CHECKS = (
    Check("same host", _same_host, _explain_same_host),
    Check("host closed", _closed, _explain_closed),
    Check("not reachable", _unreachable, _explain_unreachable),
    Check("apart", _conflicts, _explain_conflict, "groups"),
    Check("together", _scatters, _explain_scatter, "groups"),
    Check("back-off", _barred, _explain_barred, "barred"),
    Check("return", _returns, _explain_return, "returning"),
    Check("objection", _objects, _explain_objection, "objected"),
    Check("memory", _memory_short, _explain_memory),
    Check("CPU", _cpu_short, _explain_cpu),
    Check("vCPUs", _vcpus_short, _explain_vcpus),
    Check("NUMA", _nodes_short, _explain_nodes, "nodes"),
    Check("huge pages", _pages_short, _explain_pages, "pools"),
    Check("VMs", _too_many, _explain_too_many, "most"),
    Check("busy", _busy, _explain_busy),
)


def _at_stake(layout: Layout) -> tuple[Check, ...]:
    """The checks that can refuse anything on this site."""
    return _only(
        groups=bool(layout.groups),
        barred=bool(layout.barred),
        returning=bool(layout.returning),
        objected=bool(layout.objected),
        nodes=layout.nodes is not None,
        pools=layout.pools is not None,
        most=layout.policy.capacity.vms_per_host is not None,
    )


@cache
def _only(**there: bool) -> tuple[Check, ...]:
    given = {"", *(kind for kind, is_there in there.items() if is_there)}
    return tuple(check for check in CHECKS if check.only in given)
