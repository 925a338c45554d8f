"""Changes of hosts' power, and when each host last came on or went off."""

from balancerd.adapters.sqlite.database import Database
from balancerd.core.model import PowerState


class PowerTimes:
    """Read once, then kept up with each change: the loop asks in every cycle."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._times: dict[PowerState, dict[str, float]] = {}
        self._rollbacks: int | None = None

    def record(self, host: str, state: PowerState, at: float) -> None:
        """Write that a host's power was seen to change."""
        times = self._of(state)
        self._database.insert("power_events", {"at": at, "host": host, "power": state})
        times[host] = max(at, times.get(host, at))

    def woken(self) -> dict[str, float]:
        """When each host last came on."""
        return dict(self._of(PowerState.ON))

    def slept(self) -> dict[str, float]:
        """When each host last went off."""
        return dict(self._of(PowerState.OFF))

    def _of(self, state: PowerState) -> dict[str, float]:
        if self._rollbacks != self._database.rollbacks:
            self._rollbacks = self._database.rollbacks
            self._times = {}
            rows = self._database.rows("SELECT host, power, at FROM hosts_by_power")
            for host, power, at in rows:
                self._times.setdefault(PowerState(power), {})[host] = at
        return self._times.setdefault(state, {})
