"""Plans as they were made and as they went on."""

import hashlib
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any, TypeVar

import numpy as np

from balancerd.adapters.sqlite import audit
from balancerd.adapters.sqlite.database import Database
from balancerd.adapters.sqlite.packing import Column, pack, unpack
from balancerd.core.files.codec import encode, to_json, to_milliseconds
from balancerd.core.past.record import PlanState
from balancerd.core.plan import Action, Move, Plan, Sleep

T = TypeVar("T", bound=Hashable)
# What a plan says of each host, by the names in its document: the fields of the plan.
_TABLES = {"hosts_before": "before", "hosts_after": "after", "assessments": "assessments"}


def record_policy(database: Database, name: str, text: str, at: float) -> bool:
    """Keep the text of a policy, once; whether another one, or none, was in force before."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    before = database.row(
        "SELECT name, sha256 FROM policies ORDER BY used_at DESC, id DESC LIMIT 1"
    )
    database.execute(
        "INSERT INTO policies (name, sha256, text, first_seen_at, used_at) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (name, sha256) DO UPDATE SET used_at = excluded.used_at",
        (name, digest, text, at, at),
    )
    return before is None or tuple(before) != (name, digest)


def record_plan(database: Database, plan: Plan, state: PlanState, detail: str) -> int:
    """Write a plan with its actions and refusals, and a line of audit; its id."""
    with database.transaction():
        number = database.insert("plans", _plan_row(database, plan, state))
        set_state(database, number, state, plan.at, detail)
        database.execute_many(
            f"INSERT INTO plan_actions VALUES ({', '.join('?' * 18)})",
            [_action_row(number, action) for action in plan.actions],
        )
        database.execute_many(
            "INSERT INTO refusals (plan, vm, host, rule, detail, remedy) VALUES (?, ?, ?, ?, ?, ?)",
            [(number, no.vm, no.host, no.constraint, no.detail, no.remedy) for no in plan.refusals],
        )
        audit.append(database, plan.at, "plan", str(number), f"{state}: {plan.reason}")
    return number


def _plan_row(database: Database, plan: Plan, state: PlanState) -> dict[str, Any]:
    policy = database.row(
        "SELECT id FROM policies WHERE name = ? ORDER BY used_at DESC, id DESC LIMIT 1",
        (plan.policy,),
    )
    certificate = plan.certificate
    return {
        "at": plan.at,
        "policy": plan.policy,
        "policy_id": policy[0] if policy else None,
        "objective": plan.objective,
        "state": state,
        "reason": plan.reason,
        "score_before": plan.score_before,
        "score_after": plan.score_after,
        "moves": len(plan.moves),
        "power_actions": len(plan.actions) - len(plan.moves),
        "refusal_counts": to_json(dict(plan.refusal_counts)),
        "certificate": None if certificate is None else to_json(encode(certificate)),
        "tables": _packed_tables(plan),
    }


def _packed_tables(plan: Plan) -> bytes:
    """What a plan says of each host: by far its largest part, so kept apart, and by columns. What
    it says of several hosts, as of those that are off, is one row; words that come again and again
    are told by their number."""
    words: dict[str, list[str]] = {}
    columns: dict[str, Column] = {}
    for table, field in _TABLES.items():
        for name, values in _columns(getattr(plan, field)):
            key = f"{table}.{name}"
            if not isinstance(values[0], str):
                columns[key] = np.array(values)
                continue
            words[key], numbers = _numbered(values)
            if len(words[key]) < len(numbers):
                columns[key] = np.array(numbers)
    return pack(words, columns)


def _columns(items: tuple[Any, ...]) -> Iterator[tuple[str, Sequence[Any]]]:
    """The host and the number of the row of each item; then what the rows have in each other field,
    under its name. Nothing where there are no items."""
    if items:
        names = [field.name for field in fields(items[0]) if field.name != "host"]
        different, numbers = _numbered(map(attrgetter(*names), items))
        yield "host", [item.host for item in items]
        yield "row", numbers
        yield from zip(names, zip(*different, strict=True), strict=True)


def _numbered(values: Iterable[T]) -> tuple[list[T], list[int]]:
    """The different values, and which of them each one is."""
    number: dict[T, int] = {}
    numbers = [number.setdefault(value, len(number)) for value in values]
    return list(number), numbers


def tables_of(blob: bytes) -> dict[str, list[dict[str, Any]]]:
    """What a plan's tables hold, by the names in its document: a dict for each host."""
    words, columns = unpack(blob)
    found: dict[str, dict[str, list[Any]]] = {table: {} for table in _TABLES}
    for key in words | columns:
        table, _, name = key.partition(".")
        values = columns[key].tolist() if key in columns else words[key]
        told = key in words and key in columns
        found[table][name] = [words[key][number] for number in values] if told else values
    return {table: _items(**each) if each else [] for table, each in found.items()}


def _items(host: list[str], row: list[int], **each: list[Any]) -> list[dict[str, Any]]:
    """What `_columns` made columns of, a dict for each host."""
    rows = [dict(zip(each, values, strict=True)) for values in zip(*each.values(), strict=True)]
    return [{"host": name} | rows[number] for name, number in zip(host, row, strict=True)]


def _action_row(plan: int, action: Action) -> tuple[Any, ...]:
    common = (action.reason, action.wave, to_json(action.after))
    if not isinstance(action, Move):
        kind = "sleep" if isinstance(action, Sleep) else "wake"
        return (plan, action.number, kind, None, action.host, None, None, *common, *[None] * 8)
    where = (action.vm, action.source, action.target, action.method)
    predicted = (
        *(action.begin, action.seconds, action.bytes),
        to_milliseconds(action.downtime),
    )
    return (
        plan,
        action.number,
        "move",
        *where,
        *common,
        *predicted,
        action.score_after,
        action.parked,
        action.set_number,
        to_json(encode(action.basis)),
    )


def set_state(database: Database, plan: int, state: PlanState, at: float, detail: str) -> None:
    """Note how a plan goes on."""
    with database.transaction():
        database.insert("plan_states", {"plan": plan, "at": at, "state": state, "detail": detail})
        database.execute("UPDATE plans SET state = ? WHERE id = ?", (state, plan))


def open_plans(database: Database) -> tuple[int, ...]:
    """Plans that are proposed or running, oldest first."""
    rows = database.rows("SELECT id FROM plans WHERE state IN ('proposed', 'running') ORDER BY id")
    return tuple(number for (number,) in rows)
