"""Soft rules in the program: what breaks them costs their weight, as in the built-in search."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from balancerd.core.exact.drawing import FREE, Drawing
from balancerd.core.placing.constraints import soft_cost_of_group
from balancerd.core.placing.layout import Floats, Group, Ints


@dataclass(frozen=True, slots=True)
class Members:
    """A group in one of its domains: the columns that bring VMs of it there, and how many each."""

    columns: Ints
    sizes: Floats
    staying: float  # VMs of it there that are not for the program to decide
    begun: float  # VMs of it there in the first answer


def members(drawing: Drawing, index: int) -> Iterator[Members]:
    """A group in each domain where the program can bring any of it."""
    layout, question = drawing.layout, drawing.question
    domains, present = layout.domains[layout.groups[index].scope], layout.present[index]
    sizes = np.zeros(len(layout.blocks))
    for block, memberships in layout.groups_of.items():
        sizes[block] = sum(own for member, own in memberships if member == index)
    moving = np.where(question.search.movable, sizes, 0.0)
    columns = np.flatnonzero(sizes[drawing.block] > 0)
    where = domains[drawing.host[columns]]
    for domain in np.unique(where).tolist():
        here = columns[where == domain]
        staying = present.get(domain, 0) - float(moving[domains[layout.place] == domain].sum())
        begun = staying + float(moving[domains[question.start] == domain].sum())
        yield Members(here, sizes[drawing.block[here]], staying, begun)


def wishes(drawing: Drawing) -> None:
    """What broken soft rules cost; pins and avoidances are in the price of each column."""
    layout, movable = drawing.layout, drawing.question.search.movable
    averse = layout.aversion[layout.signature, layout.place]
    drawing.constant += float(averse[~movable].sum())
    for index, group in enumerate(layout.groups):
        if not group.weight:
            continue
        drawing.constant += soft_cost_of_group(layout, index)
        if group.kind == "rather apart":
            for there in members(drawing, index):
                _keep_apart(drawing, group, there, _now(drawing, there))
        else:
            everyone = sum(layout.present[index].values())
            for there in members(drawing, index) if everyone > 1 else ():
                factor = group.weight / (2.0 * (everyone - 1))
                _keep_together(drawing, factor, there, _now(drawing, there))


def _now(drawing: Drawing, there: Members) -> float:
    """How many VMs of the group are there as things are."""
    at_home = drawing.layout.place[drawing.block[there.columns]] == drawing.host[there.columns]
    return there.staying + float(there.sizes[at_home].sum())


def _keep_apart(drawing: Drawing, group: Group, there: Members, now: float) -> None:
    """A column holds the VMs that are too many."""
    drawing.constant -= group.weight * max(0.0, now - group.at_most)
    over = drawing.column(group.weight, FREE, max(0.0, there.begun - group.at_most))
    columns, values = np.append(there.columns, over), np.append(there.sizes, -1.0)
    drawing.rows.add(columns, values, -FREE, group.at_most - there.staying)


def _keep_together(drawing: Drawing, factor: float, there: Members, now: float) -> None:
    """A column for each VM that may come to be there, the later ones worth more: c² in steps."""
    drawing.constant += factor * (now**2 - there.staying**2)
    own = {int(drawing.block[c]): s for c, s in zip(there.columns, there.sizes, strict=True)}
    steps = []
    for count in range(1, round(sum(own.values())) + 1):
        worth = factor * (2.0 * (there.staying + count) - 1.0)
        is_there = float(there.staying + count <= there.begun)
        steps.append(drawing.column(-worth, 1.0, is_there, whole=True))
    columns = np.concatenate([there.columns, steps]).astype(np.int64)
    values = np.concatenate([there.sizes, -np.ones(len(steps))])
    drawing.rows.add(columns, values, 0.0, 0.0)
    for first, second in pairwise(steps):
        drawing.rows.add(np.array([second, first]), np.array([1.0, -1.0]), -FREE, 0.0)
