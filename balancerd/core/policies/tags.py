"""What VMs say of themselves: the tags in their metadata, as rules beside the policy's.

Tags are strict. One that cannot be read is never passed over: its VM is not moved until it is
mended, and everything readable of it holds meanwhile.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from typing import Literal

from balancerd.core.model import VM, Cluster
from balancerd.core.policies.ladder import CLASSES
from balancerd.core.policies.policy import Policy
from balancerd.core.policies.rule import ConstraintRule, Kind, literal
from balancerd.core.same import Same

COMPLAINT = "!"  # under this key the adapter says what of the metadata it could not pass on
MOVE_COST = "move-cost"
POST_COPY = "post-copy"
OVERLAY = "overlay"
CLASS = "class"


@dataclass(frozen=True, slots=True)
class Tag:
    """What a tag's value is ("groups" or "hosts", several with spaces; "yes"), and its rule."""

    value: Literal["groups", "hosts", "yes", "number", "class"]
    meaning: str
    kind: Kind | None = None
    scope: Literal["host", "rack"] = "host"


VOCABULARY: Mapping[str, Tag] = {
    "together": Tag("groups", "on one host with the others of the group", "together"),
    "together-rack": Tag("groups", "in one rack with the others of the group", "together", "rack"),
    "apart": Tag("groups", "never on one host with another of the group", "apart"),
    "apart-rack": Tag("groups", "never in one rack with another of the group", "apart", "rack"),
    "pin": Tag("hosts", "only on these hosts", "pin"),
    "avoid": Tag("hosts", "never on these hosts", "avoid"),
    "exclude": Tag("yes", "never moved", "exclude"),
    CLASS: Tag("class", "which ladder its migrations climb: " + ", ".join(CLASSES)),
    POST_COPY: Tag("yes", "may be moved by post-copy, where the policy allows that, too"),
    OVERLAY: Tag("yes", "its base images are on all hosts: only what lies on top has to be copied"),
    MOVE_COST: Tag("number", "what moving it costs, in place of `costs.move`"),
}


def rules_in_force(cluster: Cluster, policy: Policy) -> tuple[ConstraintRule, ...]:
    """The policy's rules and those of the VMs' tags. Each has a name that says where it is from."""
    return policy.constraint + _rules_of_tags(Same(cluster.vms))


@lru_cache(maxsize=1)
def _rules_of_tags(tagged: Same[Mapping[str, VM]]) -> tuple[ConstraintRule, ...]:
    """The rules of VMs' tags. One cycle asks for them at several doors."""
    vms: dict[tuple[str, str], list[str]] = {}
    for name in sorted(name for name, vm in tagged.value.items() if vm.tags):
        for key, value in tagged.value[name].tags.items():
            for part in _parts(key, value):
                vms.setdefault((key, part), []).append(name)
    return tuple(_rule(*about, vms[about]) for about in sorted(vms))


def _parts(key: str, value: str) -> list[str]:
    """What the rules of one tag are told apart by: each group, all hosts together."""
    tag = VOCABULARY.get(key)
    if tag is None or tag.kind is None or _complaint(key, value):
        return []
    names = sorted(set(value.split()))
    return names if tag.value == "groups" else [" ".join(names)]


def _rule(key: str, part: str, vms: list[str]) -> ConstraintRule:
    tag = VOCABULARY[key]
    return ConstraintRule.model_validate(
        {
            "kind": tag.kind,
            "vms": tuple(literal(vm) for vm in vms),
            "hosts": tuple(part.split()) if tag.value == "hosts" else (),
            "scope": tag.scope,
            "name": f'tag {key}="{part}"',
        }
    )


def move_cost(vm: VM) -> float | None:
    """What the VM's tag says that moving it costs; None where there is no such tag to read."""
    value = vm.tags.get(MOVE_COST)
    return None if value is None or _complaint(MOVE_COST, value) else float(value)


def says_yes(vm: VM, tag: str) -> bool:
    """Whether the VM has this tag, of those that say yes."""
    return vm.tags.get(tag) == "yes"


def class_of(vm: VM) -> str:
    """The VM's class, which chooses the ladder of its migrations."""
    value = vm.tags.get(CLASS, "normal")
    return value if value in CLASSES else "normal"


def unreadable(vm: VM) -> str:
    """What is wrong with a VM's tags, in a sentence; "" where all of them can be read."""
    for tag in sorted(vm.tags.items()):
        if complaint := _complaint(*tag):
            return complaint
    return ""


@lru_cache(maxsize=2**12)
def _complaint(key: str, value: str) -> str:
    if key == COMPLAINT:
        return value
    tag = VOCABULARY.get(key)
    if tag is None:
        return f'there is no tag "{key}", only {", ".join(VOCABULARY)}'
    if tag.value == "yes" and value != "yes":
        return f'{key}="{value}": must be "yes", or left out'
    if tag.value == "class" and value not in CLASSES:
        return f'{key}="{value}": must be one of {", ".join(CLASSES)}'
    if tag.value == "number" and not _is_cost(value):
        return f'{key}="{value}": must be a number, zero or more'
    if not value.split():
        return f'{key}="{value}": names no {tag.value}'
    return ""


def _is_cost(text: str) -> bool:
    try:
        return isfinite(float(text)) and float(text) >= 0
    except ValueError:
        return False
