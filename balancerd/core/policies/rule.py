"""One rule about VMs and hosts, as a policy file writes it, and what its globs mean."""

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import chain
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from balancerd.core.policies.quantity import Schema, Text
from balancerd.core.same import Alike, Same

Kind = Literal["together", "apart", "pin", "avoid", "one-of", "headroom", "exclude"]


class ConstraintRule(Schema):
    """One rule about VMs and hosts, named by globs. Which keys count depends on `kind`.

    "pin" lets each of the VMs be on any of the hosts. "one-of" takes each glob of `hosts` for a
    group of hosts, and wants all of the VMs within one of these groups.
    """

    kind: Kind = Field(description="what is asked of these VMs and hosts")
    vms: tuple[Text, ...] = Field((), description='globs of VM names, as in ["db-*"]')
    hosts: tuple[Text, ...] = Field(
        (), description='globs of host names; "one-of": each glob is a group of hosts'
    )
    scope: Literal["host", "rack"] = Field(
        "host", description='"together" on one host or in one rack; "apart" likewise'
    )
    at_most: Annotated[int, Field(ge=1)] = Field(
        1, description='"apart": so many of the VMs may share a host or rack'
    )
    share: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description='"headroom": share of each host\'s CPU and memory that is kept free'
    )
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None,
        description="makes the rule soft: it never forbids anything, and each VM that breaks it "
        "costs so much in the score",
    )
    name: str = Field("", description="how refusals call it")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        """Every kind has keys that it needs, and others that would mean nothing."""
        if self.kind == "exclude" and not (self.vms or self.hosts):
            raise ValueError('"exclude" needs vms, hosts or both')
        needed, others = _KEYS[self.kind]
        for key, field in type(self).model_fields.items():
            given = getattr(self, key) != field.default
            if key in needed and not given:
                raise ValueError(f'"{self.kind}" needs {key}')
            if given and key not in ("kind", "name", *needed, *others):
                raise ValueError(f'"{self.kind}" takes no {key}')
        return self


# By kind: the keys that it needs, and the others that it takes.
_KEYS = {
    "together": (("vms",), ("scope", "weight")),
    "apart": (("vms",), ("scope", "at_most", "weight")),
    "pin": (("vms", "hosts"), ("weight",)),
    "avoid": (("vms", "hosts"), ("weight",)),
    "one-of": (("vms", "hosts"), ("weight",)),
    "headroom": (("hosts", "share"), ()),
    "exclude": ((), ("vms", "hosts")),
}


def matches(name: str, globs: tuple[str, ...]) -> bool:
    """Whether a VM's or host's name is meant by any of the globs."""
    return any(fnmatchcase(name, g) if is_pattern(g) else name == g for g in globs)


def meant(names: Collection[str], globs: tuple[str, ...]) -> list[str]:
    """The names that any of the globs means, sorted. Quick where no glob has a wildcard."""
    literals = _literals(globs)
    if literals is None:
        return sorted(name for name in names if matches(name, globs))
    return [name for name in literals if name in names]


@lru_cache(maxsize=2)
def vms_meant(
    rules: Alike[ConstraintRule], vms: Same[Mapping[str, object]]
) -> tuple[tuple[str, ...], ...]:
    """By rule the VMs of a site that it means; found once for all who ask."""
    return _each_meant(vms.value, [rule.vms for rule in rules.value])


@lru_cache(maxsize=2)
def hosts_meant(rules: Alike[ConstraintRule], hosts: Alike[str]) -> tuple[tuple[str, ...], ...]:
    """The same of hosts, given by their names in order."""
    return _each_meant(frozenset(hosts.value), [rule.hosts for rule in rules.value])


def _each_meant(
    names: Collection[str], rules: Sequence[tuple[str, ...]]
) -> tuple[tuple[str, ...], ...]:
    """What some rules' globs mean. A glob that comes again is looked up but once."""
    found = {
        glob: meant(names, (glob,)) if is_pattern(glob) else (glob,) if glob in names else ()
        for glob in set(chain.from_iterable(rules))
    }
    plain = {glob for glob, named in found.items() if tuple(named) == (glob,)}
    return tuple(
        tuple(dict.fromkeys(globs))
        if plain.issuperset(globs)
        else tuple(dict.fromkeys(chain.from_iterable(map(found.__getitem__, globs))))
        for globs in rules
    )


@lru_cache(maxsize=2**14)
def _literals(globs: tuple[str, ...]) -> tuple[str, ...] | None:
    """The names that globs without wildcards stand for, sorted; None where one has any."""
    return None if is_pattern("".join(globs)) else tuple(sorted(set(globs)))


def is_pattern(glob: str) -> bool:
    """Whether a glob may mean other names than itself."""
    return "*" in glob or "?" in glob or "[" in glob


def literal(name: str) -> str:
    """The glob that means this name only."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
