"""What a ledger holds as values that the core speaks in: plans and snapshots.

`reader` has rows for people and programs, which take far less to read.
"""

from sqlite3 import Row
from typing import Any

from balancerd.adapters.sqlite.database import Database
from balancerd.adapters.sqlite.plans import tables_of
from balancerd.adapters.sqlite.reader import Item, item_of
from balancerd.adapters.sqlite.snapshots import snapshot_of
from balancerd.core.files.plan_document import plan_of
from balancerd.core.model import Snapshot
from balancerd.core.plan import Plan


class Values:
    """Questions to a ledger that somebody has opened, for reading or otherwise."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def plan(self, number: int | None = None) -> tuple[Item, Plan] | None:
        """One plan, or the newest: its row with the states it went through, and its value."""
        which = "id = ?" if number is not None else "? IS NULL ORDER BY id DESC LIMIT 1"
        row = self.database.row(f"SELECT * FROM plans WHERE {which}", (number,))
        if row is None:
            return None
        states = self._items(
            "SELECT at, state, detail FROM plan_states WHERE plan = ? ORDER BY id", (row["id"],)
        )
        return {"id": row["id"], "state": row["state"], "states": states}, self._plan(row)

    def _plan(self, row: Row) -> Plan:
        actions = self._items(
            "SELECT * FROM plan_actions WHERE plan = ? ORDER BY number", (row["id"],)
        )
        refusals = self.database.rows(
            'SELECT vm, host, rule AS "constraint", detail, remedy FROM refusals'
            " WHERE plan = ? ORDER BY id",
            (row["id"],),
        )
        return plan_of(
            {
                **item_of(row),
                "moves": [_move(action) for action in actions if action["kind"] == "move"],
                "power_actions": [
                    {
                        key: action[key]
                        for key in ("kind", "number", "host", "reason", "wave", "after")
                    }
                    for action in actions
                    if action["kind"] != "move"
                ],
                "refusals": [dict(refusal) for refusal in refusals],
                **tables_of(row["tables"]),
            }
        )

    def snapshot(self, plan: int | None = None) -> Snapshot | None:
        """The site as last observed, or what a plan was made of; None where that is not kept."""
        table = "newest_snapshot" if plan is None else "snapshots WHERE plan = ?"
        found = self.database.row(
            f"SELECT figures, definitions FROM {table}", () if plan is None else (plan,)
        )
        return None if found is None else snapshot_of(*found)

    def _items(self, sql: str, parameters: Any) -> list[Item]:
        return [item_of(row) for row in self.database.rows(sql, parameters)]


def _move(action: Item) -> Item:
    """A row of `plan_actions` as a move of a plan's document."""
    names = {"host": "from", "target": "to"}
    return {
        names.get(key, key): value for key, value in action.items() if key not in ("plan", "kind")
    }
