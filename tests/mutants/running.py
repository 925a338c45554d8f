"""Guards of a migration that runs, and of what became of it."""

from tests.mutants.mutant import Mutant

EXECUTOR, VERIFICATION = "tests/unit/test_executor.py", "tests/unit/test_verification.py"
CONVERGENCE, RECONCILE = "tests/unit/test_convergence.py", "tests/unit/test_reconcile.py"
THROTTLE, LOOP = "tests/unit/test_throttle.py", "tests/unit/test_loop.py"
ORDERS = "tests/unit/test_libvirt_orders.py"

RUNNING = (
    # --- bandwidth and convergence
    Mutant(
        "the cap of one migration",
        "core/executing/throttle.py",
        "Transfer(_path(topology, *way), float(limits.bandwidth))",
        'Transfer(_path(topology, *way), float("inf"))',
        THROTTLE,
        protects="no migration sends more than the policy allows",
    ),
    Mutant(
        "production goes first",
        "core/executing/throttle.py",
        "free = topology.free(production(view.snapshot))",
        "free = topology.free({})",
        THROTTLE,
        protects="migrations share what production leaves of a link",
    ),
    Mutant(
        "pauses have a longest",
        "core/executing/convergence.py",
        "return _allow(task, min(rung.downtime, view.policy.limits.downtime), reason)",
        "return _allow(task, rung.downtime, reason)",
        CONVERGENCE,
        protects="no VM is stopped for longer than the policy allows so that its move ends",
    ),
    Mutant(
        "deadline",
        "core/executing/migration.py",
        "elif task.deadline and ran > task.deadline:",
        "elif False:",
        EXECUTOR,
        protects="a migration that does not end is given up",
    ),
    Mutant(
        "stall",
        "core/executing/migration.py",
        "elif stood > limits.stall:",
        "elif False:",
        EXECUTOR,
        protects="a migration over a cut network, which raises no error, is given up",
    ),
    Mutant(
        "silence",
        "core/executing/migration.py",
        '    if silent > SILENCE:\n        return _verify(task, view, "no news of the job"), ()\n',
        "",
        VERIFICATION,
        protects="a migration whose end nobody told of is looked for on the hosts",
    ),
    Mutant(
        "no way back from post-copy",
        "core/executing/migration.py",
        "    if task.switched:\n        pass",
        "    if False:\n        pass",
        CONVERGENCE,
        protects="a VM whose memory is on both hosts is never torn apart",
    ),
    # --- whose job it is
    Mutant(
        "only our own job is aborted",
        "core/executing/convergence.py",
        "    if not task.ours:\n        return replace(task, abort_reason=reason), ()\n",
        "",
        VERIFICATION,
        protects="a migration that an operator began is not given up by balancerd",
    ),
    Mutant(
        "only our own job is watched",
        "core/executing/verification.py",
        "or not may_watch(target, ours=task.ours):",
        "or False:",
        VERIFICATION,
        protects="a job that was there before ours is waited for, not taken over",
    ),
    Mutant(
        "only our own job is throttled",
        "core/executing/throttle.py",
        "if task.stage is not Stage.RUNNING or not task.ours or now",
        "if task.stage is not Stage.RUNNING or now",
        THROTTLE,
        protects="a migration that an operator began runs as he wanted it",
    ),
    Mutant(
        "only our own leftovers are mended",
        "core/executing/verification.py",
        "    if task.foreign:\n        return False\n",
        "",
        VERIFICATION,
        protects="what another migration left is left to whoever began it",
    ),
    Mutant(
        "a job that began at another time",
        "core/executing/verification.py",
        '    return "somebody else\'s job: it began at another time"\n',
        '    return ""\n',
        VERIFICATION,
        protects="an operator's migration between our check and our start is seen to be his",
    ),
    Mutant(
        "an adopted job must have been seen",
        "core/executing/migration.py",
        "        ours=intent.seen,\n",
        "        ours=True,\n",
        VERIFICATION,
        protects="after a restart only what the record shows to be ours is given up",
    ),
    # --- both hosts, twice
    Mutant(
        "ends are read from both hosts",
        "core/executing/migration.py",
        "    if report.ended:\n        return _verify(task, view, report.error), ()\n",
        "    if report.ended:\n"
        "        return task.to(Stage.FAILED if report.error else Stage.DONE, view.now), ()\n",
        EXECUTOR,
        protects="what became of a migration is what both hosts say, never an error",
    ),
    Mutant(
        "silence is no answer",
        "core/executing/reconcile.py",
        "return TABLE.get((source, target), WAIT)",
        'return TABLE.get((source, target), Finding(Outcome.FAILED, "unknown"))',
        RECONCILE,
        protects="nothing is concluded, and nothing touched, while a host does not answer",
    ),
    Mutant(
        "a copy is touched after two equal answers",
        "core/executing/verification.py",
        "if TOUCHING & set(finding.acts) and stood <",
        "if False and stood <",
        EXECUTOR,
        protects="states that a healthy migration passes through are not mistaken for leftovers",
    ),
    Mutant(
        "a target's definition that was there before",
        "core/executing/verification.py",
        "return not task.target_defined",
        "return True",
        EXECUTOR,
        protects="no definition is removed that the move did not make",
    ),
    Mutant(
        "all hosts are asked before a VM is lost",
        "core/executing/verification.py",
        "    if _may_be_elsewhere(finding):\n",
        "    if False:\n",
        VERIFICATION,
        protects="a VM that went to a third host is not called lost, nor started again",
    ),
    Mutant(
        "a silent third host",
        "core/executing/verification.py",
        "    if silent and not task.ours:\n",
        "    if False:\n",
        VERIFICATION,
        protects="a source is not resumed while a host that does not answer may have the VM",
    ),
    Mutant(
        "two running copies",
        "core/executing/reconcile.py",
        '    (P.RUNNING, P.RUNNING): Finding(Outcome.QUARANTINED, "runs on both hosts"),\n',
        '    (P.RUNNING, P.RUNNING): Finding(Outcome.FAILED, "", (Act.DESTROY_TARGET,)),\n',
        RECONCILE,
        protects="of two running copies none is ended by a program",
    ),
    Mutant(
        "a running copy is not destroyed",
        "adapters/libvirt/acts.py",
        '    if found not in _HALVES:\n        raise Refused(f"it is {found.value}")\n',
        "",
        ORDERS,
        protects="the last look before the leap: what runs by now is left alone",
    ),
    Mutant(
        "a copy that a user paused",
        "adapters/libvirt/acts.py",
        "    if found not in (Presence.OUTGOING, Presence.HANDED_OVER):\n"
        '        raise Refused(f"it is {found.value}")\n',
        "",
        ORDERS,
        protects="what somebody paused on purpose is not resumed",
    ),
    # --- the daemon's own death
    Mutant(
        "migrations are peer to peer",
        "adapters/libvirt/order.py",
        "_ALWAYS = libvirt.VIR_MIGRATE_PEER2PEER | libvirt",
        "_ALWAYS = libvirt",
        ORDERS,
        protects="a migration outlives the daemon that began it",
    ),
    Mutant(
        "adoption on restart",
        "loop.py",
        "        self._executions = [adopt(intents)]\n",
        "        self._executions = []\n",
        LOOP,
        protects="what was left under way is taken up, and its end recorded",
    ),
    Mutant(
        "an end is recorded though the disk was full",
        "recorder.py",
        "        self._unrecorded.append(conclusion)\n        if not self.broken:\n"
        "            self.retry()\n",
        "        self.keep(self.ledger.conclude, conclusion)\n",
        LOOP,
        protects="no migration stays open on record because the ledger was broken when it ended",
    ),
)
