"""The policy that a record has: the one in force, or that of a plan."""

from balancerd.adapters.sqlite.reader import Reader
from balancerd.cli.errors import invalid
from balancerd.core.policies.policy import Policy
from balancerd.documents import DocumentError, parse


def recorded_policy(reader: Reader, plan: int | None = None) -> Policy:
    """The policy of a plan, or the one last put in force; DocumentError, CommandError."""
    found = reader.policy(plan)
    if found is None:
        raise invalid("the record has no policy; give one with --policy")
    name, text = found
    return parse(text, Policy, f"policy {name} of the record").model_copy(update={"name": name})


def policy_in_force(reader: Reader) -> Policy | None:
    """The policy last put in force, if there is one that this balancerd still understands."""
    try:
        return recorded_policy(reader) if reader.policy() else None
    except DocumentError:
        return None
