"""A plan as a drawing: what waits for what, or which host gives VMs to which.

Both are one layered graph, written in the DOT language or, where nothing can lay that out, drawn
as SVG in columns: a layer is a column, and lines go from left to right as far as they can.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from xml.sax.saxutils import escape

from balancerd.core.plan import HostFigures, Move, Plan, Sleep, Wake
from balancerd.core.units import counted

WIDTH, LINE, GAP, MARGIN = 230, 16, 14, 20  # of boxes and between them, in pixels
BETWEEN = 110  # from column to column
NAMED = 3  # VMs that an edge between two hosts names


@dataclass(frozen=True, slots=True)
class Node:
    """A box: its lines, the layer it stands in, and what a pointer over it is told."""

    key: str
    lines: tuple[str, ...]
    layer: int
    tip: str = ""


@dataclass(frozen=True, slots=True)
class Graph:
    """Boxes, and lines between them by their keys, each with a label."""

    nodes: tuple[Node, ...]
    edges: tuple[tuple[str, str, str], ...]


def graph_of_moves(plan: Plan) -> Graph:
    """The plan's actions and what each waits for. Layers are waves, between wakes and sleeps."""
    last = 1 + max((move.wave for move in plan.moves), default=0)
    nodes, edges = [], []
    for action in plan.actions:
        key = str(action.number)
        match action:
            case Move():
                way = f"{action.source} > {action.target}"
                node = Node(key, (f"{key}. {action.vm}", way), action.wave, action.reason)
            case Wake():
                node = Node(key, (f"{key}. wake {action.host}",), 0, action.reason)
            case Sleep():
                node = Node(key, (f"{key}. sleep {action.host}",), last, action.reason)
        nodes.append(node)
        edges += [(str(earlier), key, "") for earlier in action.after]
    return Graph(tuple(nodes), tuple(edges))


def graph_of_hosts(plan: Plan) -> Graph:
    """Hosts that give or take VMs, those that only give first, with what moves between them."""
    ways: dict[tuple[str, str], list[str]] = {}
    for move in plan.moves:
        ways.setdefault((move.source, move.target), []).append(move.vm)
    gives, takes = {source for source, _ in ways}, {target for _, target in ways}
    after = {figures.host: figures for figures in plan.after}
    nodes = [
        Node(f.host, _lines(f, after.get(f.host, f)), (f.host in takes) + (f.host not in gives))
        for f in plan.before
        if f.host in gives | takes
    ]
    known = {node.key for node in nodes}
    nodes += [
        Node(host, (host,), (host in takes) + (host not in gives))
        for host in sorted((gives | takes) - known)
    ]
    edges = [(source, target, _named(vms)) for (source, target), vms in sorted(ways.items())]
    return Graph(tuple(nodes), tuple(edges))


def _lines(before: HostFigures, after: HostFigures) -> tuple[str, ...]:
    return (
        before.host,
        f"CPU {before.cpu:.0%} → {after.cpu:.0%}, memory {before.memory:.0%} → {after.memory:.0%}",
        f"{before.vms} → {counted(after.vms, 'VM')}",
    )


def _named(vms: list[str]) -> str:
    more = f" +{len(vms) - NAMED}" if len(vms) > NAMED else ""
    return ", ".join(vms[:NAMED]) + more


def as_dot(graph: Graph) -> str:
    """The graph in the DOT language; a layer is a rank."""
    lines = ["digraph plan {", "  rankdir=LR;", "  node [shape=box];"]
    for node in graph.nodes:
        tip = f", tooltip={_quoted(node.tip)}" if node.tip else ""
        lines.append(f"  {_quoted(node.key)} [label={_quoted(chr(10).join(node.lines))}{tip}];")
    for start, end, label in graph.edges:
        named = f" [label={_quoted(label)}]" if label else ""
        lines.append(f"  {_quoted(start)} -> {_quoted(end)}{named};")
    for layer in _layers(graph):
        lines.append(f"  {{ rank=same; {' '.join(f'{_quoted(n.key)};' for n in layer)} }}")
    return "\n".join([*lines, "}"])


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _layers(graph: Graph) -> list[list[Node]]:
    """The nodes of each layer that has any, in order."""
    layers: dict[int, list[Node]] = {}
    for node in graph.nodes:
        layers.setdefault(node.layer, []).append(node)
    return [layers[layer] for layer in sorted(layers)]


@dataclass(frozen=True, slots=True)
class _Box:
    """Where a node is drawn: its upper left corner, and its height."""

    node: Node
    left: int
    top: int
    height: int

    @property
    def middle(self) -> int:
        return self.top + self.height // 2


def as_svg(graph: Graph) -> str:
    """The graph as an SVG picture, a layer a column."""
    boxes = {box.node.key: box for box in _boxes(graph)}
    right = max((box.left + WIDTH for box in boxes.values()), default=0) + MARGIN
    bottom = max((box.top + box.height for box in boxes.values()), default=0) + MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{right}" height="{bottom}" '
        f'viewBox="0 0 {right} {bottom}" font-family="sans-serif" font-size="12">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" '
        'markerHeight="8" orient="auto"><path d="M0 0 8 4 0 8z"/></marker></defs>',
        f'<rect width="{right}" height="{bottom}" fill="white"/>',
    ]
    for start, end, label in graph.edges:
        lines += _line(boxes[start], boxes[end], label)
    for box in boxes.values():
        lines += _drawn(box)
    return "\n".join([*lines, "</svg>"])


def _boxes(graph: Graph) -> Iterator[_Box]:
    for column, layer in enumerate(_layers(graph)):
        top = MARGIN
        for node in layer:
            height = LINE * len(node.lines) + 8
            yield _Box(node, MARGIN + column * (WIDTH + BETWEEN), top, height)
            top += height + GAP


def _line(start: _Box, end: _Box, label: str) -> Iterator[str]:
    """A curve from the right of one box to the left of another, which may stand anywhere."""
    x, y, to_x, to_y = start.left + WIDTH, start.middle, end.left, end.middle
    bend = max(BETWEEN // 2, abs(to_x - x) // 3)
    yield (
        f'<path d="M{x} {y} C{x + bend} {y} {to_x - bend} {to_y} {to_x} {to_y}" fill="none" '
        'stroke="gray" marker-end="url(#tip)"/>'
    )
    if label:
        yield (
            f'<text x="{(x + to_x) // 2}" y="{(y + to_y) // 2 - 3}" fill="dimgray" font-size="10" '
            f'text-anchor="middle">{escape(label)}</text>'
        )


def _drawn(box: _Box) -> Iterator[str]:
    yield "<g>"
    if box.node.tip:
        yield f"<title>{escape(box.node.tip)}</title>"
    yield (
        f'<rect x="{box.left}" y="{box.top}" width="{WIDTH}" height="{box.height}" rx="4" '
        'fill="aliceblue" stroke="steelblue"/>'
    )
    for number, line in enumerate(box.node.lines):
        weight = ' font-weight="bold"' if number == 0 else ""
        y = box.top + LINE * (number + 1)
        yield f'<text x="{box.left + 8}" y="{y}"{weight}>{escape(line)}</text>'
    yield "</g>"
