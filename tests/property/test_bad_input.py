"""What is wrong with a site, or with a policy for it, costs neither the plan nor the planner."""

import pytest
from hypothesis import given, settings

from balancerd.core.model import Snapshot
from balancerd.core.past.history import History
from balancerd.core.placing.constraints import contradictions, soft_breaks, violations
from balancerd.core.placing.layout import is_sane
from balancerd.core.planner import plan
from balancerd.core.policies.policy import Policy
from tests.property.disturbed import disturbed
from tests.property.drawn import histories, policies
from tests.sites import NOW


@pytest.mark.filterwarnings("error::RuntimeWarning")
@settings(max_examples=300)
@given(disturbed(), policies(), histories())
def test_a_disturbed_site_has_a_sound_plan_that_leaves_alone_what_is_not_known(
    snapshot: Snapshot, policy: Policy, history: History
) -> None:
    """Dies if a host with a capacity that is no number takes part, and on every traceback."""
    made = plan(snapshot, policy, history, NOW)
    assert not made.reason.startswith("the checker refused"), made.reason
    assert made.certificate is not None
    assert made.certificate.violations == ()
    cluster = snapshot.cluster
    for move in made.moves:
        assert move.vm in cluster.vms
        assert cluster.placement[move.vm] in cluster.hosts
        assert is_sane(cluster.hosts[move.target])


@settings(max_examples=150)
@given(disturbed(), policies())
def test_rules_are_judged_on_any_site(snapshot: Snapshot, policy: Policy) -> None:
    assert all(found.subject for found in violations(snapshot, policy))
    assert all(found.subject for found in soft_breaks(snapshot, policy))
    for refusal in contradictions(snapshot.cluster, policy):
        assert refusal.constraint == "contradiction"
        assert refusal.detail
