"""Guards of cold moves: a VM that is shut off is nothing but a definition, which must stay one."""

from tests.mutants.mutant import Mutant

MOVES, SNAPSHOT = "tests/unit/test_cold.py", "tests/unit/test_snapshot.py"

COLD = (
    Mutant(
        "only what is shut off moves cold",
        "core/executing/cold.py",
        "    if source not in (P.SHUTOFF, P.FAILED):\n",
        "    if False:\n",
        MOVES,
        protects="a VM that somebody started meanwhile is not moved cold",
    ),
    Mutant(
        "a cold move's target has nothing of the VM",
        "core/executing/cold.py",
        "    if target is not P.ABSENT:\n",
        "    if False:\n",
        MOVES,
        protects="no definition is carried to where there is one",
    ),
    Mutant(
        "no other host has anything of it",
        "core/executing/cold.py",
        " if said != P.ABSENT\n",
        " if False\n",
        MOVES,
        protects="what is left over from a VM that runs elsewhere is not carried off",
    ),
    Mutant(
        "a host that is off may have it, too",
        "core/sensing/snapshot.py",
        "        if name in had:\n",
        "        if False:\n",
        SNAPSHOT,
        protects="what is left over from a VM of a host that sleeps or crashed is not carried off",
    ),
    Mutant(
        "a host that is off and was never read",
        "core/sensing/snapshot.py",
        "        elif unread:\n",
        "        elif False:\n",
        SNAPSHOT,
        protects="after a restart, what sleeping hosts have is not taken for nothing",
    ),
    Mutant(
        "no cold moves while a host is not known",
        "core/placing/constraints/cold.py",
        "    if unknown:\n",
        "    if False:\n",
        MOVES,
        protects="a host that does not answer may run what is shut off elsewhere",
    ),
    Mutant(
        "what a cold move would leave behind",
        "core/placing/constraints/cold.py",
        "    if vm.left_behind:\n",
        "    if False:\n",
        MOVES,
        protects="no VM is carried off without its saved memory, its TPM or its firmware variables",
    ),
    Mutant(
        "memory that is saved by now",
        "adapters/libvirt/migration.py",
        "if self.order.method is Method.COLD and domain.hasManagedSaveImage():",
        "if False:",
        "tests/unit/test_libvirt_orders.py",
        protects="a VM whose memory was saved since it was planned does not lose it",
    ),
    Mutant(
        "what may be on its way is waited for",
        "core/executing/cold.py",
        "waited < patience",
        "waited < 0.0",
        MOVES,
        protects="a cold move under way is not called failed, or lost",
    ),
    Mutant(
        "a call that was not answered is waited for",
        "core/executing/cold.py",
        "ANSWERED if answered and finding is STAYED",
        "ANSWERED if finding is STAYED",
        MOVES,
        protects="a cold move is not given up while its source may be at work on it",
    ),
    Mutant(
        "what stood before the answer does not count",
        "core/executing/verification.py",
        " and told.at <= task.pair_since",
        "",
        MOVES,
        protects="a cold move is not given up on what was seen while it was under way",
    ),
)
