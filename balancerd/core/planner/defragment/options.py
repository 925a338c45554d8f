"""What could be done to each node and host, as arrays.

A node *option*: VMs that leave it, and how many big VMs are to fit afterwards; what room is then
left over may be filled with others. A host *scene*: VMs that lie on several nodes leave, or come,
or one for another, or none; under it the options of the host's nodes are independent of each other.
Hosts that look alike are one *class*.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations, combinations_with_replacement
from math import inf

import numpy as np

from balancerd.core.placing.layout import Bools, Floats, Ints
from balancerd.core.planner.defragment.site import Site

LEAVING_AT_MOST = 2  # VMs that leave a node
COMING_AT_MOST = 3  # VMs that come to a node
WIDE_LEAVING_AT_MOST = 3  # VMs on several nodes that leave a host, ...
WIDE_COMING_AT_MOST = 1  # ... and that come: with two the search has more to go astray in
EPSILON = 1e-9

Filling = tuple[int, ...]  # kinds, with repetition
# What is free on a node (vCPUs, bytes), which kinds may land there (bits), and how many of which
# kinds could leave it.
Present = tuple[tuple[int, int], ...]  # kinds with their counts
State = tuple[float, float, int, Present]
TOO_FULL: State = (-inf, -inf, 0, ())
Shift = tuple[int, tuple[int, ...]]  # a kind that lies on several nodes, and which nodes


@dataclass(frozen=True, slots=True)
class Scene:
    """VMs on several nodes that leave, and that come; and the states under it."""

    leaving: tuple[Shift, ...]
    coming: tuple[Shift, ...]
    states: tuple[int, ...]  # of each node of the host


@dataclass(frozen=True, slots=True)
class Options:
    """All that could be done. Counts by kind are columns; rows lie state by state, class by class.

    `fits[r, f]`: filling f fits into left-over room r.
    """

    fillings: list[Filling]
    filled: Floats  # fillings x kinds
    fits: Bools
    leaving: list[Filling]  # per option
    left: Floats  # options x kinds
    rooms: Floats  # per option: big VMs that fit
    over: Ints  # per option: the left-over room
    state: Ints  # per option
    scenes: list[Scene]
    shifted: Floats  # scenes x kinds: left less come
    shifts: Floats  # per scene: VMs that leave several nodes
    before: Floats  # per scene: big VMs that fit now
    scene_class: Ints
    nodes: Ints  # states of the nodes of each scene, one after the other
    first_node: Ints  # per scene
    classes: list[list[int]]  # hosts


@dataclass(slots=True)
class _Drawing:
    """Options while they are enumerated."""

    site: Site
    states: dict[State, int] = field(default_factory=dict)
    overs: dict[tuple[float, float, int], int] = field(default_factory=dict)
    leavings: dict[Present, list[tuple[Filling, float, float]]] = field(default_factory=dict)
    rows: list[tuple[Filling, int, int, int]] = field(default_factory=list)
    scenes: list[tuple[int, int, Scene]] = field(default_factory=list)  # class, big VMs now

    def state(self, state: State) -> int | None:
        """The number of a state; None if its node could not be in it."""
        if state in self.states:
            return self.states[state]
        number, found = len(self.states), list(self._options(state))
        if not found:
            return None
        self.states[state] = number
        self.rows += [(leaving, rooms, over, number) for leaving, rooms, over in found]
        return number

    def _options(self, state: State) -> Iterator[tuple[Filling, int, int]]:
        vcpus, memory, landing, present = state
        size, now = self.site.size, self.fit(vcpus, memory)
        if state == TOO_FULL:  # but nobody has to leave for that
            yield (), 0, self.overs.setdefault((0.0, 0.0, 0), len(self.overs))
        for leaving, less_vcpus, less_memory in self._leavings(present):
            free, bytes_ = vcpus + less_vcpus, memory + less_memory
            if free < -EPSILON or bytes_ < -EPSILON:
                continue
            most = self.fit(free, bytes_)
            for rooms in range(max(0, min(now, most) - 1), most + 1):
                over = (free - rooms * size.vcpus, bytes_ - rooms * size.memory, landing)
                yield leaving, rooms, self.overs.setdefault(over, len(self.overs))

    def _leavings(self, present: Present) -> list[tuple[Filling, float, float]]:
        """Every choice of VMs to leave, with the vCPUs and bytes that they free."""
        if present not in self.leavings:
            kinds, counts = self.site.kinds, dict(present)
            self.leavings[present] = [
                (chosen, sum(kinds[k].vcpus for k in chosen), sum(kinds[k].memory for k in chosen))
                for size in range(LEAVING_AT_MOST + 1)
                for chosen in combinations_with_replacement(counts, size)
                if all(chosen.count(kind) <= counts[kind] for kind in set(chosen))
            ]
        return self.leavings[present]

    def fit(self, vcpus: float, memory: float) -> int:
        """Big VMs that fit into free room."""
        size = self.site.size
        count = vcpus / size.vcpus
        if size.memory > 0:
            count = min(count, memory / size.memory)
        return int(count + EPSILON) if count > 0 else 0


def options_of(site: Site) -> Options:
    """All options of a site."""
    drawing, classes = _Drawing(site), _classes(site)
    for number, looks in enumerate(classes):
        _draw_scenes(drawing, number, looks)
    fillings = _fillings(site)
    return _as_arrays(drawing, list(classes.values()), fillings)


Wide = tuple[tuple[Shift, int], ...]  # what lies on several nodes, and how often
Looks = tuple[tuple[State, ...], Wide]


def _classes(site: Site) -> dict[Looks, list[int]]:
    """Hosts by how they look: their nodes' states, and their VMs on several nodes."""
    present: dict[int, dict[int, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
    wide: dict[int, list[tuple[Shift, int]]] = defaultdict(list)
    for (kind, (host, nodes)), blocks in sorted(site.blocks.items()):
        if len(nodes) == 1:
            present[host][nodes[0]].append((kind, min(len(blocks), LEAVING_AT_MOST)))
        else:
            wide[host].append(((kind, nodes), min(len(blocks), WIDE_LEAVING_AT_MOST)))
    classes: dict[Looks, list[int]] = defaultdict(list)
    for host in site.hosts:
        states = tuple(
            _state(site, host, row, tuple(present[host][row - site.first[host]]))
            for row in range(site.first[host], site.first[host + 1])
        )
        classes[states, tuple(sorted(wide[host]))].append(host)
    return classes


def _state(site: Site, host: int, row: int, present: Present) -> State:
    """A node's state. Memory beyond all need is left out, so that more nodes look alike."""
    kinds = site.kinds
    vcpus, memory = float(site.free.vcpus[row]), float(site.free.memory[row])
    if vcpus < -EPSILON or memory < -EPSILON:
        return TOO_FULL
    dense = max(kind.memory / max(kind.vcpus, EPSILON) for kind in kinds)
    dense = max(dense, site.size.memory / site.size.vcpus)
    widest = (LEAVING_AT_MOST + 1) * max(kind.vcpus for kind in kinds)
    enough = dense * (max(vcpus, 0.0) + widest)
    node = row - site.first[host]
    bits = sum(
        1 << number
        for number, kind in enumerate(kinds)
        if site.landing[number, host] and (not kind.only or node in kind.only)
    )
    return vcpus, min(memory, enough), bits, present


def _draw_scenes(drawing: _Drawing, number: int, looks: Looks) -> None:
    """The scenes of a class of hosts; the first is that nothing on several nodes changes."""
    states, wide = looks
    before = sum(drawing.fit(vcpus, memory) for vcpus, memory, _, _ in states)
    for leaving, coming in _shifts(drawing.site, states, wide):
        shifted = states
        for shift in leaving:
            shifted = _shifted(drawing.site, shifted, shift, 1)
        for shift in coming:
            shifted = _shifted(drawing.site, shifted, shift, -1)
        found = [drawing.state(state) for state in shifted]
        valid = tuple(state for state in found if state is not None)
        if len(valid) == len(found):
            drawing.scenes.append((number, before, Scene(leaving, coming, valid)))


def _shifts(
    site: Site, states: tuple[State, ...], wide: Wide
) -> Iterator[tuple[tuple[Shift, ...], tuple[Shift, ...]]]:
    """What VMs on several nodes could do: nothing, leave, come, or take each other's place."""
    coming = [
        (number, nodes)
        for number, kind in enumerate(site.kinds)
        if kind.span > 1 and any(bits >> number & 1 for _, _, bits, _ in states)
        for nodes in combinations(range(len(states)), kind.span)
        if kind.only in ((), nodes) and all(states[node] != TOO_FULL for node in nodes)
    ]
    yield (), ()
    for leaves, _ in wide:
        for comes in coming:
            if comes[1] == leaves[1] and comes[0] != leaves[0]:
                yield (leaves,), (comes,)
    for size in range(1, WIDE_COMING_AT_MOST + 1):
        for arriving in combinations_with_replacement(coming, size):
            yield (), arriving
    for size in range(1, WIDE_LEAVING_AT_MOST + 1):
        for leaving in combinations_with_replacement(dict(wide), size):
            if all(leaving.count(shift) <= count for shift, count in wide):
                yield leaving, ()


def _shifted(site: Site, states: tuple[State, ...], shift: Shift, sign: int) -> tuple[State, ...]:
    kind = site.kinds[shift[0]]
    return tuple(
        (vcpus + sign * kind.vcpus, memory + sign * kind.memory, bits, present)
        if node in shift[1]
        else (vcpus, memory, bits, present)
        for node, (vcpus, memory, bits, present) in enumerate(states)
    )


def _fillings(site: Site) -> list[Filling]:
    """Every choice of VMs to come to a node, that some node could take."""
    largest = max((float(site.free.vcpus[row]) for row in range(len(site.free.host))), default=0.0)
    most = largest + LEAVING_AT_MOST * max(kind.vcpus for kind in site.kinds)
    narrow = [number for number, kind in enumerate(site.kinds) if kind.span == 1]
    return [
        chosen
        for size in range(COMING_AT_MOST + 1)
        for chosen in combinations_with_replacement(narrow, size)
        if not chosen or sum(site.kinds[kind].vcpus for kind in chosen) <= most + EPSILON
    ]


def _as_arrays(drawing: _Drawing, classes: list[list[int]], fillings: list[Filling]) -> Options:
    kinds = len(drawing.site.kinds)
    scenes = [scene for _, _, scene in drawing.scenes]
    fits, over = _fits(drawing, fillings)
    shifted = np.zeros((len(scenes), kinds))
    for row, scene in enumerate(scenes):
        for kind, _ in scene.leaving:
            shifted[row, kind] += 1
        for kind, _ in scene.coming:
            shifted[row, kind] -= 1
    widths = [len(scene.states) for scene in scenes]
    return Options(
        fillings=fillings,
        filled=_counts(fillings, kinds),
        fits=fits,
        leaving=[row[0] for row in drawing.rows],
        left=_counts([row[0] for row in drawing.rows], kinds),
        rooms=np.array([float(row[1]) for row in drawing.rows]),
        over=over[[row[2] for row in drawing.rows]],
        state=np.array([row[3] for row in drawing.rows], dtype=np.int64),
        scenes=scenes,
        shifted=shifted,
        shifts=np.array([float(len(scene.leaving)) for scene in scenes]),
        before=np.array([float(before) for _, before, _ in drawing.scenes]),
        scene_class=np.array([number for number, _, _ in drawing.scenes], dtype=np.int64),
        nodes=np.array([state for scene in scenes for state in scene.states], dtype=np.int64),
        first_node=np.concatenate(([0], np.cumsum(widths)[:-1])).astype(np.int64),
        classes=classes,
    )


def _counts(choices: list[Filling], kinds: int) -> Floats:
    counts = np.zeros((len(choices), kinds))
    for row, chosen in enumerate(choices):
        for kind in chosen:
            counts[row, kind] += 1
    return counts


def _fits(drawing: _Drawing, fillings: list[Filling]) -> tuple[Bools, Ints]:
    """Which fillings fit into which left-over room, equal ones once; and each room's row there."""
    kinds = drawing.site.kinds
    vcpus = np.array([sum(kinds[kind].vcpus for kind in chosen) for chosen in fillings])
    memory = np.array([sum(kinds[kind].memory for kind in chosen) for chosen in fillings])
    bits = np.array([sum({1 << kind for kind in chosen}) for chosen in fillings], dtype=np.int64)
    overs = list(drawing.overs)
    room = np.array([[over[0], over[1]] for over in overs])
    landing = np.array([over[2] for over in overs], dtype=np.int64)
    fits = vcpus <= room[:, :1] + EPSILON
    fits &= memory <= room[:, 1:] * (1 + EPSILON)
    fits &= (bits & ~landing[:, np.newaxis]) == 0
    unique, row = np.unique(fits, axis=0, return_inverse=True)
    return unique, np.asarray(row, dtype=np.int64).reshape(-1)
