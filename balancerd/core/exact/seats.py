"""NUMA nodes in the program: VMs that are bound to nodes, and alike, are counted node by node.

If as many nodes of a host as each VM of a kind lies on are counted for every one that comes, and
none more often than VMs come, they can be dealt out so that no VM has a node twice. What stays on
its host stays on its nodes.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from balancerd.core.exact.drawing import FREE, Drawing
from balancerd.core.placing.nodes import Nodes, Seat, Share


@dataclass(slots=True)
class _Node:
    """What a node holds: of what stays, and by column."""

    vcpus: float
    memory: float
    begun: tuple[float, float]  # vCPUs and memory in the first answer
    columns: dict[int, tuple[float, float]] = field(default_factory=dict)

    def add(self, column: int, share: Share) -> None:
        vcpus, memory = self.columns.get(column, (0.0, 0.0))
        self.columns[column] = vcpus + share.vcpus, memory + share.memory


def seats(drawing: Drawing) -> None:
    """No node holds more than it may, or than it does at the start."""
    nodes = drawing.layout.nodes
    if nodes is None:
        return
    staying, begun = _used(drawing, nodes)
    for host in range(drawing.hosts):
        bound = [c for c in drawing.on[host].tolist() if int(drawing.block[c]) in nodes.shares]
        if not bound:
            continue
        first, end = int(nodes.first[host]), int(nodes.first[host + 1])
        there = [
            _Node(
                float(staying.used_vcpus[row]),
                float(staying.used_memory[row]),
                (float(begun.used_vcpus[row]), float(begun.used_memory[row])),
            )
            for row in range(first, end)
        ]
        _come(drawing, nodes, host, bound, there)
        for row, node in zip(range(first, end), there, strict=True):
            limits = float(nodes.vcpu_capacity[row]), float(nodes.memory_capacity[row])
            _hold(drawing, node, limits)


def _used(drawing: Drawing, nodes: Nodes) -> tuple[Nodes, Nodes]:
    """The nodes without what the program decides, and as they are in the first answer."""
    layout, question = drawing.layout, drawing.question
    staying = nodes.copy()
    movable = [b for b in nodes.shares if question.search.movable[b]]
    for block in movable:
        staying.release(block, int(layout.place[block]))
    begun = staying.copy()
    for block in movable:
        host = int(question.start[block])
        seat = _seat_at_start(drawing, nodes, block)
        if seat:
            begun.charge(block, host, seat)
    return staying, begun


def _seat_at_start(drawing: Drawing, nodes: Nodes, block: int) -> Seat:
    host = int(drawing.question.start[block])
    if host == drawing.layout.place[block]:
        return nodes.seats.get((block, host), ())
    return drawing.question.seats.get(block, ())


def _come(
    drawing: Drawing, nodes: Nodes, host: int, bound: Iterable[int], there: list[_Node]
) -> None:
    """Columns for those that come, kind by kind, and rows that tie them to who comes."""
    coming: dict[Share, dict[int, float]] = defaultdict(dict)
    begun: dict[tuple[Share, int], float] = defaultdict(float)
    for column in bound:
        block = int(drawing.block[column])
        if drawing.layout.place[block] == host:
            for share, on in zip(
                nodes.shares[block], nodes.seats.get((block, host), ()), strict=False
            ):
                for number in on:
                    there[number].add(column, share)
            continue
        seat = _seat_at_start(drawing, nodes, block)
        for index, share in enumerate(nodes.shares[block]):
            kind = replace(share, vm="")
            coming[kind][column] = coming[kind].get(column, 0.0) + 1.0
            if drawing.question.start[block] == host and index < len(seat):
                for number in seat[index]:
                    begun[kind, number] += 1.0
    for kind, columns in coming.items():
        _deal_out(drawing, kind, columns, begun, there)


def _deal_out(
    drawing: Drawing,
    kind: Share,
    columns: dict[int, float],
    begun: dict[tuple[Share, int], float],
    there: list[_Node],
) -> None:
    """How many VMs of a kind that come have each node: one column for each."""
    who, counts = np.array(list(columns)), np.array(list(columns.values()))
    most, dealt = float(counts.sum()), []
    for number, node in enumerate(there):
        if kind.only and number not in kind.only:
            continue
        column = drawing.column(0.0, most, begun[kind, number], whole=True)
        node.add(column, kind)
        dealt.append(column)
        values = np.append(1.0, -counts)
        drawing.rows.add(np.append(column, who), values, -FREE, 0.0)
    columns_ = np.concatenate([dealt, who]).astype(np.int64)
    values = np.concatenate([np.ones(len(dealt)), -kind.span * counts])
    drawing.rows.add(columns_, values, 0.0, 0.0)


def _hold(drawing: Drawing, node: _Node, limits: tuple[float, float]) -> None:
    """The rows of one node."""
    columns = np.array(list(node.columns), dtype=np.int64)
    amounts = np.array(list(node.columns.values())).reshape(-1, 2)
    for index, staying in enumerate((node.vcpus, node.memory)):
        limit = max(limits[index], node.begun[index])
        if np.isfinite(limit):
            scale = max(limit, float(amounts[:, index].max(initial=0.0)), 1e-9)
            left = (limit - staying) / scale
            drawing.rows.add(columns, amounts[:, index] / scale, -FREE, left)
