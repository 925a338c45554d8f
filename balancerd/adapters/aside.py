"""A power driver whose orders are carried out beside the loop, which they would hold up.

A command may take a minute. Each order has a thread of its own; what goes wrong is told later.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from balancerd.core.model import PowerState
from balancerd.ports import PowerError

LOG = logging.getLogger(__name__)


class Driver(Protocol):
    """A power driver whose orders last until they were carried out."""

    def states(self, hosts: Iterable[str]) -> Mapping[str, PowerState]:
        """The power state of each host."""
        ...

    def wake(self, host: str) -> None:
        """Switch a host on."""
        ...

    def sleep(self, host: str) -> None:
        """Shut a host down."""
        ...


class PowerAside:
    """The `Power` port over another one that may block. One order to a host at a time."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._lock = threading.Lock()
        self._under_way: set[str] = set()
        self._failures: dict[str, str] = {}

    def states(self, hosts: Iterable[str]) -> Mapping[str, PowerState]:
        """The driver's answer, waited for: what is asked is needed now."""
        return self._driver.states(hosts)

    def wake(self, host: str) -> None:
        """Begin to switch a host on."""
        self._begin(host, self._driver.wake)

    def sleep(self, host: str) -> None:
        """Begin to shut a host down."""
        self._begin(host, self._driver.sleep)

    def failures(self) -> Mapping[str, str]:
        """Orders that failed since the last call, with the reason, by host."""
        with self._lock:
            told, self._failures = self._failures, {}
        return told

    def _begin(self, host: str, order: Callable[[str], None]) -> None:
        with self._lock:
            if host in self._under_way:
                raise PowerError(f"{host}: the last order is still under way")
            self._under_way.add(host)
        name = f"power of {host}"
        threading.Thread(target=self._carry_out, args=(host, order), name=name, daemon=True).start()

    def _carry_out(self, host: str, order: Callable[[str], None]) -> None:
        problem = ""
        try:
            order(host)
        except PowerError as error:
            problem = str(error)
        except Exception as error:  # an order must be told the end of, whatever happened
            LOG.exception("%s: the order failed", host)
            problem = f"{host}: unforeseen: {error!r}"
        with self._lock:
            self._under_way.discard(host)
            if problem:
                self._failures[host] = problem
