"""Who goes where, as a mixed-integer program, with the costs and limits of the built-in search."""

from dataclasses import dataclass

import numpy as np

from balancerd.core.exact.drawing import FREE, TINY, Drawing, Question
from balancerd.core.exact.program import Program
from balancerd.core.exact.seats import seats
from balancerd.core.exact.wishes import members, wishes
from balancerd.core.placing.layout import Bools, Floats, Ints

PAIRS = 60_000  # up to which each pair is tied to its host being open by a row of its own


@dataclass(frozen=True, slots=True)
class Assignment:
    """A program, and which block and host each of its first columns stands for.

    What it finds costs `constant` more than it says.
    """

    program: Program
    block: Ints
    host: Ints
    constant: float

    def places(self, home: Ints, x: Floats) -> Ints:
        """Where each block ends up."""
        place = home.copy()
        chosen = np.flatnonzero(x[: len(self.block)] > 0.5)
        place[self.block[chosen]] = self.host[chosen]
        return place


def pairs(question: Question) -> tuple[Ints, Ints]:
    """Block and host of each way to be, block by block.

    Where a block is now is one of them, and where it is in the first answer.
    """
    search = question.search
    may = search.reach[search.layout.signature] & search.open_ & search.movable[:, np.newaxis]
    _bar(question, may)
    rows = np.flatnonzero(search.movable)
    may[rows, search.layout.place[rows]] = True
    may[rows, question.start[rows]] = True
    block, host = np.nonzero(may)
    return block, host


def _bar(question: Question, may: Bools) -> None:
    """Leave out what was tried in vain, and what would take a VM away from its group."""
    layout = question.search.layout
    for block, came_from in layout.returning.items():
        may[block, list(came_from)] = False
    for block, said in layout.objected.items():
        may[block, list(said)] = False
    for source, targets in layout.barred.items():
        may[np.ix_(layout.place == source, np.array(list(targets), dtype=np.int64))] = False
    for block, groups in layout.groups_of.items():
        for index, _ in groups:
            group = layout.groups[index]
            if group.kind == "together":
                domains = layout.domains[group.scope]
                may[block] &= domains == domains[layout.place[block]]


def assignment(question: Question) -> Assignment:
    """The program of a question."""
    block, host = pairs(question)
    drawing = Drawing(question, block, host)
    _once_each(drawing)
    _within_limits(drawing)
    _closed_hosts(drawing)
    _apart(drawing)
    _budget(drawing)
    _crowding(drawing)
    seats(drawing)
    wishes(drawing)
    return Assignment(drawing.program(), block, host, drawing.constant)


def _once_each(drawing: Drawing) -> None:
    """Every block is somewhere."""
    edges = np.flatnonzero(np.diff(drawing.block)) + 1
    for columns in np.split(np.arange(len(drawing.block)), edges):
        drawing.rows.add(columns, np.ones(len(columns)), 1.0, 1.0)


def _within_limits(drawing: Drawing) -> None:
    """No host that takes VMs holds more than it may, or than it does at the start."""
    search, layout = drawing.question.search, drawing.layout
    capacity = layout.policy.capacity
    _limit(drawing, layout.cpu, layout.used_cpu, search.cpu_limit, spread=True)
    if capacity.enforce_memory:
        _limit(drawing, layout.memory, layout.used_memory, search.memory_limit)
    _limit(drawing, layout.vcpus, layout.used_vcpus, layout.vcpu_capacity)
    if (pools := layout.pools) is not None:
        for row in range(len(pools.sizes)):
            demand = pools.demand(row, len(layout.blocks))
            _limit(drawing, demand, pools.used[row], pools.capacity[row])
    if search.busy is not None:
        _limit(drawing, layout.now, layout.used_now, search.busy)
    if capacity.vms_per_host is not None:
        sizes = np.array([len(block) for block in layout.blocks], dtype=np.float64)
        most = np.full(drawing.hosts, float(capacity.vms_per_host))
        _limit(drawing, sizes, layout.used_count.astype(np.float64), most)


def _limit(
    drawing: Drawing, demand: Floats, used: Floats, limit: Floats, *, spread: bool = False
) -> None:
    layout, slope, question = drawing.layout, drawing.slope, drawing.question
    staying, start = drawing.staying(demand, used), drawing.at_start(demand, used)
    if spread:
        fixed = drawing.staying(layout.variance, layout.used_variance)
        staying = staying + slope * fixed + drawing.offset
        begun = drawing.at_start(layout.variance, layout.used_variance)
        start = start + slope * begun + drawing.offset
    scale = np.maximum(limit, demand.max(initial=TINY))
    left = (np.maximum(limit, start) - staying) / scale
    for row in np.flatnonzero(question.search.open_):
        columns = drawing.on[row]
        asked = demand[drawing.block[columns]]
        if spread:
            asked = asked + slope[row] * layout.variance[drawing.block[columns]]
        asked = asked / scale[row]
        if question.closable[row] and left[row] > 0:
            columns = np.append(columns, drawing.gate(int(row)))
            drawing.rows.add(columns, np.append(asked, -left[row]), -FREE, 0.0)
        else:
            drawing.rows.add(columns, asked, -FREE, float(left[row]))


def _closed_hosts(drawing: Drawing) -> None:
    """Nothing is on a host that is not open."""
    single = len(drawing.block) <= PAIRS
    for row in np.flatnonzero(drawing.question.closable):
        gate, columns = drawing.gate(int(row)), drawing.on[row]
        if single:
            for column in columns:
                drawing.rows.add(np.array([column, gate]), np.array([1.0, -1.0]), -FREE, 0.0)
        else:
            values = np.append(np.ones(len(columns)), -float(len(columns)))
            drawing.rows.add(np.append(columns, gate), values, -FREE, 0.0)


def _apart(drawing: Drawing) -> None:
    """Of a group that is kept apart no domain holds more than it may, or does at the start."""
    for index, group in enumerate(drawing.layout.groups):
        if group.kind != "apart":
            continue
        for there in members(drawing, index):
            most = max(there.begun, float(group.at_most)) - there.staying
            drawing.rows.add(there.columns, there.sizes, -FREE, most)


def _budget(drawing: Drawing) -> None:
    """No more VMs move than may, in all and for each host that is closed."""
    question, layout = drawing.question, drawing.layout
    sizes = np.array([len(names) for names in layout.blocks], dtype=np.float64)
    away = np.flatnonzero(layout.place[drawing.block] != drawing.host)
    moved = sizes[drawing.block[away]]
    drawing.rows.add(away, moved, -FREE, float(question.room))
    gates = len(drawing.block) + np.flatnonzero(question.closable)
    if len(gates):
        columns, each = np.concatenate([away, gates]), float(question.per_host)
        values = np.concatenate([moved, np.full(len(gates), each)])
        begun = float(sizes[question.start != layout.place].sum())
        open_ = np.bincount(question.start, minlength=drawing.hosts) > 0
        begun += each * float((open_ & question.closable).sum())
        drawing.rows.add(columns, values, -FREE, max(begun, each * len(gates)))


def _crowding(drawing: Drawing) -> None:
    """What a host holds beyond what is crowded, a column of its own holds."""
    search, layout = drawing.question.search, drawing.layout
    if not search.crowding:
        return
    fixed = drawing.staying(layout.variance, layout.used_variance)
    staying = drawing.staying(layout.cpu, layout.used_cpu) + drawing.slope * fixed + drawing.offset
    variance = np.maximum(drawing.at_start(layout.variance, layout.used_variance), 0.0)
    begun = drawing.at_start(layout.cpu, layout.used_cpu) + drawing.slope * variance
    over = np.maximum(begun + drawing.offset - search.crowded, 0.0)
    for row in range(drawing.hosts):
        blocks = drawing.block[drawing.on[row]]
        column = drawing.column(search.crowding, FREE, float(over[row]))
        asked = layout.cpu[blocks] + drawing.slope[row] * layout.variance[blocks]
        left = float(search.crowded[row] - staying[row])
        columns = np.append(drawing.on[row], column)
        drawing.rows.add(columns, np.append(asked, -1.0), -FREE, left)
