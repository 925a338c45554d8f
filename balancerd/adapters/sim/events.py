"""The world's own story, in the form of `balancerctl export`: what really happened, and when."""

from typing import Any

from balancerd.core.units import format_time

Event = dict[str, Any]


class Story:
    """Events in time order, each with `t` (ISO time) and `event`."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.powers: list[tuple[float, str, bool]] = []  # time, host, on: with the time unrounded

    def place(self, at: float, vm: str, host: str) -> None:
        """Where a VM is at the start."""
        self._add(at, "place", vm=vm, host=host)

    def power(self, at: float, host: str, on: bool) -> None:
        """A host begins or ceases to draw power."""
        self.powers.append((at, host, on))
        self._add(at, "power", host=host, state="on" if on else "off")

    def move_start(self, at: float, vm: str, source: str, target: str, method: str) -> None:
        """A migration begins."""
        self._add(at, "move_start", vm=vm, **{"from": source}, to=target, method=method)

    def move_end(
        self,
        at: float,
        vm: str,
        source: str,
        target: str,
        method: str,
        sent: int,
        downtime: float,
        outcome: str,
    ) -> None:
        """A migration ends. `sent` in bytes, `downtime` in seconds."""
        self._add(
            at,
            "move_end",
            vm=vm,
            **{"from": source},
            to=target,
            method=method,
            bytes=sent,
            downtime_ms=round(downtime * 1000, 3),
            outcome=outcome,
        )

    def _add(self, at: float, event: str, **fields: Any) -> None:
        self.events.append({"t": format_time(at), "event": event, **fields})
