"""Keys told from the schema."""

import pytest

from balancerd.config import Configuration
from balancerd.core.policies.policy import Policy
from balancerd.core.policies.window import Window
from balancerd.documents import parse
from balancerd.keys import keys_of

POLICY = {key.path: key for key in keys_of(Policy)}


@pytest.mark.parametrize(
    ("path", "kind", "default"),
    [
        ("thresholds.cpu.overload", "number > 0, ≤ 1", "0.8"),
        ("limits.cooldown", "duration", '"30m"'),
        ("limits.per_host", "whole number ≥ 1", "1"),
        ("mode", '"observe", "advise", "act"', '"advise"'),
        ("power.sleep_idle", "true or false", "false"),
        ("summary", "text", "required"),
        ("window[].from", "time of day", "required"),
        ("constraint[].vms", "list of text", "[]"),
    ],
)
def test_a_key_says_what_may_be_written_and_what_stands_without_it(
    path: str, kind: str, default: str
) -> None:
    found = POLICY[path]
    assert (found.kind, "required" if found.required else found.default) == (kind, default)


@pytest.mark.parametrize("model", [Policy, Configuration])
def test_every_key_has_a_meaning(model: type[Policy] | type[Configuration]) -> None:
    assert [key.path for key in keys_of(model) if not key.meaning] == []


def test_a_default_shown_is_one_that_may_be_written() -> None:
    """What is told of a duration, size or rate reads back as the default itself."""
    for key in POLICY.values():
        table, _, name = key.path.rpartition(".")
        if key.default and "[]" not in key.path:
            head = f"[{table}]\n" if table else ""
            text = f'summary = "x"\n{head}{name} = {key.default}\n'
            assert parse(text, Policy, key.path) == Policy(summary="x"), key.path


def test_all_keys_of_a_window_are_told() -> None:
    told = {path.removeprefix("window[].") for path in POLICY if path.startswith("window[].")}
    assert told == {field.alias or name for name, field in Window.model_fields.items()}
