"""What soft rules about groups pull VMs to, that have to leave anyway."""

import pytest

from balancerd.core.policies.rule import ConstraintRule
from tests.sites import planned, policy, rule, site, told

HOT = "h1 10c 64G: a 3c 8G, b 6c 8G | h2 10c 64G: x 0.1c 1G | h3 10c 64G: y 0.1c 1G"


def soft(kind: str, vms: str, scope: str = "host") -> ConstraintRule:
    return rule(kind, vms, scope=scope).model_copy(update={"weight": 0.5})


@pytest.mark.parametrize("objective", ["quiet", "spread", "defragment"])
def test_a_vm_that_is_relieved_goes_to_those_that_it_talks_with(objective: str) -> None:
    """Dies when affinity has no pull on relief: h2 is emptier, and first by name."""
    text = HOT.replace("y 0.1c 1G", "y 1c 4G")
    assert told(planned(site(text), policy(objective)))[0] == "a h1>h2"
    made = planned(site(text), policy(objective, soft("together", "a y")))
    assert told(made)[0] == "a h1>h3"


def test_members_of_a_group_are_spread_over_racks_rather_than_hosts() -> None:
    """Dies when a soft "apart" looks at hosts though it is about racks."""
    text = "r1/h1 10c 64G: a 3c 8G, b 6c 8G | r2/h2 10c 64G: x 0.1c 1G | r3/h3 10c 64G: y 2c 8G"
    text += " | r2/h4 10c 64G: z 0.1c 1G"
    assert told(planned(site(text), policy())) == ["a h1>h2"]
    apart = soft("apart", "a z", "rack")
    assert told(planned(site(text), policy("quiet", apart))) == ["a h1>h3"]
