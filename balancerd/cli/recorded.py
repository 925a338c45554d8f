"""The plans and snapshots of a record."""

from pathlib import Path
from typing import Any

from balancerd.adapters.sqlite.reader import Reader
from balancerd.adapters.sqlite.values import Values
from balancerd.cli.errors import invalid
from balancerd.core.model import Snapshot
from balancerd.core.plan import Plan


def kept(reader: Reader, record: Path, plan: int | None = None) -> Snapshot:
    """The snapshot of a plan, or the newest; CommandError where it is not kept."""
    found = Values(reader.database).snapshot(plan)
    if found is None:
        what = f"the snapshot of plan {plan} is not kept" if plan else "no snapshot is kept yet"
        raise invalid(f"{record}: {what}")
    return found


def recorded_plan(reader: Reader, record: Path, number: int | None) -> tuple[dict[str, Any], Plan]:
    """A plan of the record with its row; CommandError where there is none of that number."""
    found = Values(reader.database).plan(number)
    if found is None:
        what = f"there is no plan {number}" if number else "no plan was made yet"
        raise invalid(f"{record}: {what}")
    return found
