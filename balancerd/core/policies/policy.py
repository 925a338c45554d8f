"""What the operator wants: objective, thresholds, constraints, limits, power, and windows of time.

A policy says what, never how. The classes of this package are the schema: field names are the keys
of the TOML file, text with a unit is turned into SI numbers here, and every error carries its path.
"""

from collections import Counter
from functools import lru_cache
from typing import Any

from pydantic import Field, PrivateAttr, TypeAdapter, ValidationInfo, field_validator

from balancerd.core.policies.choices import Engine
from balancerd.core.policies.quantity import Text
from balancerd.core.policies.rule import ConstraintRule
from balancerd.core.policies.tables import Exact
from balancerd.core.policies.window import RULES, Rules, Window
from balancerd.core.same import Same


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`changes` laid over `base`, tables key by key."""
    return base | {
        key: _merged(base[key], value)
        if isinstance(value, dict) and isinstance(base.get(key), dict)
        else value
        for key, value in changes.items()
    }


class Policy(Rules):
    """A policy file. `at` gives the rules in force at a moment."""

    summary: Text = Field(description="what the policy is for, in one line")
    engine: Engine = Field(
        Engine.BUILTIN,
        description='what decides about "pack" and "quiet"; "exact" and "shadow" need the extra '
        "balancerd[optimizer]",
    )
    exact: Exact = Exact()
    constraint: tuple[ConstraintRule, ...] = ()
    window: tuple[Window, ...] = ()
    name: str = Field("", description="what plans call it; without it, the file's name")
    _variants: tuple[Rules, ...] = PrivateAttr(default=())

    @field_validator("constraint")
    @classmethod
    def _named(cls, rules: tuple[ConstraintRule, ...]) -> tuple[ConstraintRule, ...]:
        """Rules without a name are called by their place in the file."""
        return tuple(
            rule if rule.name else rule.model_copy(update={"name": f"constraint[{index}]"})
            for index, rule in enumerate(rules)
        )

    @field_validator("window")
    @classmethod
    def _windows_fit(cls, windows: tuple[Window, ...], info: ValidationInfo) -> tuple[Window, ...]:
        """Each window's rules have to be valid as a whole, whatever else is wrong in the file."""
        _in_force({name: info.data[name] for name in RULES if name in info.data}, windows)
        twice = [name for name, count in Counter(w.name for w in windows).items() if count > 1]
        if twice:
            raise ValueError(f'two windows have the name "{twice[0]}"')
        return windows

    def model_post_init(self, _: Any) -> None:
        """Make the rules of each window once, not at every question."""
        self._variants = _in_force({name: getattr(self, name) for name in RULES}, self.window)

    def window_at(self, now: float) -> Window | None:
        """The window that counts at a moment: the first in the file that contains it."""
        return next((window for window in self.window if window.contains(now)), None)

    def at(self, now: float) -> "Policy":
        """The policy as it stands at a moment; its windows are kept, its rules are the window's.

        The same object as long as the same window holds: much is kept for as long as a policy is.
        """
        if not self.window:  # else pydantic looks for what is private, at every question
            return self
        for window, rules in zip(self.window, self._variants, strict=True):
            if window.contains(now):
                return _under(Same(self), Same(rules))
        return self


@lru_cache(maxsize=8)
def _under(policy: Same[Policy], rules: Same[Rules]) -> Policy:
    return policy.value.model_copy(update={name: getattr(rules.value, name) for name in RULES})


_VARIANTS = TypeAdapter(tuple[Rules, ...])


def _in_force(own: dict[str, Any], windows: tuple[Window, ...]) -> tuple[Rules, ...]:
    """The rules during each window; ValidationError where they do not fit the policy's own."""
    base = Rules.model_construct(**own).model_dump()
    return _VARIANTS.validate_python([_merged(base, window.changes()) for window in windows])
