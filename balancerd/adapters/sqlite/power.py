"""Changes of hosts' power: when each host last came on or went off, and whose doing it was."""

from sqlite3 import Row

from balancerd.adapters.sqlite.database import Database
from balancerd.core.model import PowerState
from balancerd.core.outcome import Outcome
from balancerd.core.past.record import Conclusion, IntentKind

_SENT = (
    "SELECT host, max(conclusions.at) AS at FROM intents"
    " JOIN conclusions ON conclusions.intent = intents.id"
    " WHERE kind = 'sleep' AND outcome = 'done' GROUP BY host"
)


class PowerTimes:
    """Read once, then kept up with each change: the loop asks in every cycle."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._times: dict[PowerState, dict[str, float]] = {}
        self._newest: dict[str, PowerState] = {}
        self._sent: dict[str, float] = {}  # when we sent each host to sleep last
        self._rollbacks: int | None = None

    def record(self, host: str, state: PowerState, at: float) -> None:
        """Write that a host's power was seen to change; seeing it again as it was is no change."""
        times = self._of(state)
        if self._newest.get(host) is state:
            return
        self._database.insert("power_events", {"at": at, "host": host, "power": state})
        times[host] = max(at, times.get(host, at))
        self._newest[host] = state

    def add(self, intent: Row, conclusion: Conclusion) -> None:
        """Take in an action that was concluded just now."""
        if intent["kind"] == IntentKind.SLEEP and conclusion.outcome is Outcome.DONE:
            host, at = intent["host"], conclusion.at
            self._sent[host] = max(at, self._sent.get(host, at))

    def woken(self) -> dict[str, float]:
        """When each host last came on. One that was always on, as far as we know, never did."""
        came_on = self._of(PowerState.ON)
        others = [times for state, times in self._times.items() if state is not PowerState.ON]
        been_off: set[str] = set().union(*others)
        return {host: at for host, at in came_on.items() if host in been_off}

    def slept(self) -> dict[str, float]:
        """When each host last went off."""
        return dict(self._of(PowerState.OFF))

    def put_to_sleep(self) -> dict[str, float]:
        """When we sent each host to sleep that was not seen on since."""
        came_on = self._of(PowerState.ON)
        return {host: at for host, at in self._sent.items() if came_on.get(host, at) <= at}

    def _of(self, state: PowerState) -> dict[str, float]:
        if self._rollbacks != self._database.rollbacks:
            self._rollbacks = self._database.rollbacks
            self._times = {}
            rows = self._database.rows("SELECT host, power, at FROM hosts_by_power")
            for host, power, at in rows:
                self._times.setdefault(PowerState(power), {})[host] = at
            newest = self._database.rows("SELECT host, power, max(id) FROM power_events GROUP BY 1")
            self._newest = {host: PowerState(power) for host, power, _ in newest}
            sent = self._database.rows(_SENT)
            self._sent = {row["host"]: row["at"] for row in sent}
        return self._times.setdefault(state, {})
