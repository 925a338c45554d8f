"""What became of a cold move: a VM that is shut off has no job to watch and nothing that runs, only
a definition that must be on exactly one host in the end.

libvirt writes the definition down on the target first and removes it from the source last. So it is
done once only the target has it. Whatever else is seen may be on its way to that, and nobody can
ask: it is believed only after it stood for longer than a call can hang. Sooner where the source has
answered the call and both hosts go on to tell that nothing came of it: what the target was last
asked to do, it has done when it answers us. Nothing is ever removed here: two definitions, or none,
are for a person to look at.
"""

from collections.abc import Mapping

from balancerd.core.executing.reconcile import WAIT, Act, Finding
from balancerd.core.observation import Presence
from balancerd.core.outcome import Outcome

P = Presence
PATIENCE = 120.0  # seconds; hosts give each other up after 30
ANSWERED = 5.0  # the same where the source has answered

_OFF = (P.SHUTOFF, P.FAILED, P.CRASHED, P.MIGRATED)
_HERE = (*_OFF, P.RUNNING, P.PAUSED)  # shut off, or started meanwhile by somebody

DONE = Finding(Outcome.DONE, "defined on the target", (Act.CARRY_AUTOSTART,))
STAYED = Finding(Outcome.FAILED, "still on the source")
TABLE: dict[tuple[Presence, Presence], Finding] = {
    **{(P.ABSENT, there): DONE for there in _HERE},
    **{(here, P.ABSENT): STAYED for here in _HERE},
    **{
        (here, there): Finding(Outcome.QUARANTINED, "defined on both hosts")
        for here in _HERE
        for there in _HERE
    },
    (P.RUNNING, P.RUNNING): Finding(Outcome.QUARANTINED, "runs on both hosts"),
    (P.ABSENT, P.ABSENT): Finding(Outcome.LOST, "defined on neither host"),
}
_AT_ONCE = frozenset({pair for pair in TABLE if TABLE[pair] is DONE} | {(P.RUNNING, P.RUNNING)})


def judge_cold(
    source: Presence, target: Presence, waited: float, *, answered: bool = False
) -> Finding:
    """What to make of a pair of presences; `waited` is for how many seconds the pair stood,
    `answered` whether the source has answered the call since before that."""
    pair = source, target
    finding = TABLE.get(pair, WAIT)
    patience = ANSWERED if answered and finding is STAYED else PATIENCE
    return WAIT if pair not in _AT_ONCE and waited < patience else finding


def may_carry(source: Presence, target: Presence, others: Mapping[str, Presence]) -> str:
    """Why a definition may not go from a host to another that say this; "" when it may.

    What is shut off here may be left over from a VM that runs elsewhere: all others have to say
    that they know nothing of it.
    """
    if source not in (P.SHUTOFF, P.FAILED):
        return f"the source says {source.value}"
    if target is not P.ABSENT:
        return f"the target says {target.value}"
    known = (
        f"{host} says {said.value}" for host, said in sorted(others.items()) if said != P.ABSENT
    )
    return next(known, "")
