"""Guards of sets: VMs that belong together are committed together."""

from tests.mutants.mutant import Mutant

SET = "tests/unit/test_sets.py"

SETS = (
    Mutant(
        "a set is committed at one moment",
        "core/executing/sets.py",
        "all(is_cleared(member, view) for member in (task, *others))",
        "True",
        SET,
        protects="no member of a set starts before the hosts of all were asked",
    ),
    Mutant(
        "one that is left behind holds the others back",
        "core/executing/sets.py",
        "(t for t in others if t.stage in ENDED and t.stage is not Stage.DONE)",
        "(t for t in others if False)",
        SET,
        protects="of a set no more members leave after one that did not get there",
    ),
    Mutant(
        "what the hosts of a set said grows old",
        "core/executing/sets.py",
        "bool(task.cleared) and view.now - task.cleared <= view.policy.detection.stale_after",
        "bool(task.cleared)",
        SET,
        protects="a set that was held up is asked about again",
    ),
    Mutant(
        "failures keep all of a set back",
        "core/executing/executor.py",
        "is_asked or any(self._waits_for_its_turn(other.move) for other in fellows)",
        "is_asked",
        SET,
        protects="no member of a set starts while a breaker holds another one back",
    ),
)
