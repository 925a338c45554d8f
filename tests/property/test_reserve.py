"""The reserve's what-if, against trying out every placement."""

from itertools import product
from random import Random

import numpy as np
from hypothesis import given, settings

from balancerd.core.past.history import History
from balancerd.core.placing.constraints import Failover
from balancerd.core.placing.layout import Layout
from balancerd.core.placing.survey import lay_out
from tests.property.drawn import SEEDS
from tests.sites import NOW, policy, rule, site


def drawn(random: Random) -> Layout:
    hosts = [
        f"h{number} {random.choice([4, 8])}c {random.choice([8, 16, 32])}G: "
        + ", ".join(
            f"v{number}{letter} {random.choice([0, 1, 3])}c {random.choice([1, 6, 12])}G"
            for letter in "abc"[: random.choice([0, 1, 1, 2, 3])]
        )
        for number in range(random.randint(2, 8))
    ]
    rules = [rule("avoid", "v?a", random.choice(["h0", "h[01]"]))] * random.randint(0, 1)
    return lay_out(site(" | ".join(hosts)), policy("quiet", *rules), History(), NOW)


def fits(layout: Layout, host: int, share: float) -> bool:
    """Whether any placement of the host's blocks on the others keeps within the share."""
    others = [row for row in range(len(layout.hosts)) if row != host]
    blocks = layout.blocks_on(host)
    for rows in product(others, repeat=len(blocks)):
        if not all(
            layout.reachable[layout.signature[b], r] for b, r in zip(blocks, rows, strict=True)
        ):
            continue
        cpu, memory = layout.used_cpu.copy(), layout.used_memory.copy()
        np.add.at(cpu, list(rows), layout.cpu[blocks])
        np.add.at(memory, list(rows), layout.memory[blocks])
        changed = list(rows)
        if (cpu <= share * layout.cpu_capacity + 1e-9)[changed].all() and (
            memory <= share * layout.memory_capacity + 1e-9
        )[changed].all():
            return True
    return False


@settings(max_examples=120)
@given(SEEDS)
def test_a_host_counts_as_covered_only_if_its_vms_do_fit_elsewhere(seed: int) -> None:
    """Dies if it is forgotten where each VM may be."""
    layout = drawn(Random(seed))
    on = np.ones(len(layout.hosts), dtype=np.bool_)
    for share in (0.7, 1.0):
        stranded = Failover.of(layout).homeless(on, share, share)
        for host in range(len(layout.hosts)):
            assert host in stranded or fits(layout, host, share)
