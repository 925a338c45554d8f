"""Soft rules as planning uses them: what a block costs on each host, and what a layout costs.

Both count as `soft_definition.soft_breaks` does; a property test ties them.
"""

import numpy as np

from balancerd.core.placing.constraints.fast import others_of
from balancerd.core.placing.layout import Floats, Layout


def soft_cost(layout: Layout, block: int) -> Floats:
    """By host, what soft rules would cost more with the block there than with it on no host."""
    cost: Floats = layout.aversion[layout.signature[block]].copy()
    for index, own in layout.groups_of.get(block, ()):
        group = layout.groups[index]
        if not group.weight:
            continue
        others = others_of(layout, block, index, own)
        if group.kind == "rather apart":
            before = np.maximum(0, others - group.at_most)
            added = np.maximum(0, others + own - group.at_most) - before
        else:
            everyone = int(others.sum()) + own
            added = own * (everyone - own - others) / max(1, everyone - 1)
        cost += group.weight * added[layout.domains[group.scope]]
    return cost


def soft_cost_of_group(layout: Layout, index: int) -> float:
    """What a group costs as it lies now; nothing for a hard one."""
    group, counts = layout.groups[index], layout.present[index].values()
    if group.kind == "rather apart":
        return group.weight * sum(max(0, count - group.at_most) for count in counts)
    everyone = sum(counts)
    if not group.weight or everyone < 2:
        return 0.0
    pairs = (everyone**2 - sum(count**2 for count in counts)) / 2
    return group.weight * pairs / (everyone - 1)
