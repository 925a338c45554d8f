"""What fields are called in files, where that differs from the code: other words, units."""

from collections.abc import Mapping
from dataclasses import MISSING, Field
from typing import Any

from balancerd.core.lessons import Basis
from balancerd.core.model import VM, Disk, Forecast, Gap, Host, HugePages, Link, Load, NumaNode
from balancerd.core.plan import Action, Move, Plan, Sleep, Wake

# The keys of fields whose name does not tell the unit, or is another word outside.
KEYS: Mapping[type, Mapping[str, str]] = {
    NumaNode: {"cpu": "cpu_reference_cores", "memory": "memory_bytes"},
    Host: {
        "cpu": "cpu_reference_cores",
        "memory": "memory_bytes",
        "power_curve": "power_curve_watts",
        "clock": "clock_ahead_seconds",
    },
    Disk: {"size": "size_bytes", "allocated": "allocated_bytes"},
    HugePages: {"size": "page_bytes", "memory": "memory_bytes"},
    VM: {"memory": "memory_bytes", "cpu": "cpu_reference_cores"},
    Link: {"bandwidth": "bandwidth_bytes_per_s"},
    Load: {
        "cpu": "cpu_reference_cores",
        "cpu_mean": "cpu_mean_reference_cores",
        "memory": "memory_bytes",
        "network": "network_bytes_per_s",
        "block": "block_bytes_per_s",
        "dirty_rate": "dirty_bytes_per_s",
        "shortage": "shortage_bytes",
    },
    Forecast: {
        "cpu": "cpu_reference_cores",
        "spread": "spread_reference_cores",
        "usual": "usual_reference_cores",
    },
    Move: {
        "source": "from",
        "target": "to",
        "begin": "predicted_begin_seconds",
        "seconds": "predicted_seconds",
        "bytes": "predicted_bytes",
        "downtime": "predicted_downtime_ms",
    },
    Basis: {"model_downtime": "model_downtime_ms"},
}
SPARSE = {Host, VM, Disk, Load}  # fields with their default are left out
TIMES = {(Gap, "since"), (Load, "since"), (Plan, "at")}
MILLISECONDS = {(Move, "downtime"), (Basis, "model_downtime")}
TAGS: Mapping[Any, Mapping[str, type]] = {Action: {"move": Move, "sleep": Sleep, "wake": Wake}}


def key_of(kind: type, name: str) -> str:
    """What a field of a dataclass is called outside."""
    return KEYS.get(kind, {}).get(name, name)


def default_of(field: "Field[Any]") -> Any:
    """A field's default; MISSING where it has none."""
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default


def to_milliseconds(seconds: float) -> float:
    """To the nanosecond, so that `from_milliseconds` can give back the very same number."""
    return round(seconds * 1000, 6)


def from_milliseconds(milliseconds: float) -> float:
    """Seconds, to the nanosecond."""
    return round(milliseconds / 1000, 9)
