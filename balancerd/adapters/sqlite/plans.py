"""Plans as they were made and as they went on, with the snapshots they were made of."""

import hashlib
import json
import zlib
from dataclasses import fields
from typing import Any

from balancerd.adapters.sqlite import audit
from balancerd.adapters.sqlite.database import Database
from balancerd.core.files.cluster_text import ClusterWriter
from balancerd.core.files.codec import encode, to_json, to_milliseconds
from balancerd.core.model import Snapshot
from balancerd.core.past.record import PlanState
from balancerd.core.plan import Action, Move, Plan, Sleep
from balancerd.ports import LedgerError

_COMPRESSION = 1  # a third larger than the best, at a fifth of its time


def pack(text: str) -> bytes:
    """JSON text, compressed: what the BLOB columns hold."""
    return zlib.compress(text.encode(), _COMPRESSION)


def unpack(blob: bytes) -> Any:
    """The document that `pack` was given; LedgerError where the blob is not its work."""
    try:
        return json.loads(zlib.decompress(blob))
    except (zlib.error, ValueError) as error:
        raise LedgerError(f"a document in the ledger is damaged: {error}") from None


def record_policy(database: Database, name: str, text: str, at: float) -> None:
    """Keep the text of a policy, once."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    database.execute(
        "INSERT INTO policies (name, sha256, text, first_seen_at, used_at) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (name, sha256) DO UPDATE SET used_at = excluded.used_at",
        (name, digest, text, at, at),
    )


class Snapshots:
    """Snapshots on their way into the ledger; one that is kept twice is packed once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._packed: tuple[Snapshot, bytes] | None = None
        self._writer = ClusterWriter()

    def keep_newest(self, snapshot: Snapshot) -> None:
        """Keep it as the cluster as last observed."""
        self._database.execute(
            "INSERT OR REPLACE INTO newest_snapshot (id, at, cluster_file) VALUES (1, ?, ?)",
            (snapshot.at, self._pack(snapshot)),
        )

    def keep_for(self, plan: int, snapshot: Snapshot) -> None:
        """Keep it as what a plan was made of."""
        values = {"plan": plan, "at": snapshot.at, "cluster_file": self._pack(snapshot)}
        self._database.insert("snapshots", values)

    def _pack(self, snapshot: Snapshot) -> bytes:
        if self._packed is None or self._packed[0] is not snapshot:
            self._packed = (snapshot, pack(self._writer.text(snapshot)))
        return self._packed[1]


def record_plan(database: Database, plan: Plan, state: PlanState) -> int:
    """Write a plan with its actions and refusals; its id. A line of audit where it does anything.

    What an empty plan says of each host is only kept until the next plan comes: there may be
    thousands of them a day.
    """
    with database.transaction():
        database.execute(
            "UPDATE plans SET tables = NULL WHERE state = 'empty' AND tables IS NOT NULL"
            " AND id = (SELECT max(id) FROM plans)"
        )
        number = database.insert("plans", _plan_row(database, plan, state))
        set_state(database, number, state, plan.at, "")
        database.execute_many(
            f"INSERT INTO plan_actions VALUES ({', '.join('?' * 18)})",
            [_action_row(number, action) for action in plan.actions],
        )
        database.execute_many(
            "INSERT INTO refusals (plan, vm, host, rule, detail, remedy) VALUES (?, ?, ?, ?, ?, ?)",
            [(number, no.vm, no.host, no.constraint, no.detail, no.remedy) for no in plan.refusals],
        )
        if plan.actions:
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
        "tables": pack(to_json({key: _columns(x) for key, x in plan_tables(plan).items()})),
    }


def plan_tables(plan: Plan) -> dict[str, tuple[Any, ...]]:
    """What a plan says of each host: by far its largest part, so kept apart."""
    return {
        "hosts_before": plan.before,
        "hosts_after": plan.after,
        "assessments": plan.assessments,
    }


def _columns(items: tuple[Any, ...]) -> dict[str, list[Any]]:
    """A table by columns, which takes a third of the time and room of one by rows."""
    names = [field.name for field in fields(items[0])] if items else []
    return {name: [getattr(item, name) for item in items] for name in names}


def rows_of(columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """The rows of a table that `_columns` has turned."""
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


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
