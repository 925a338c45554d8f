"""balancerd, the process: signals, alarm clock, watchdog.

One thread decides and acts. APScheduler and the signal handlers only ring: they put an `Alarm` into
a queue that this thread reads. The watchdog of systemd is fed by completed cycles and nothing else.
"""

import faulthandler
import logging
import os
import queue
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from pathlib import Path

import click
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from balancerd import places
from balancerd.adapters.sqlite.lock import lock
from balancerd.config import Configuration
from balancerd.core.units import counted
from balancerd.documents import DocumentError
from balancerd.notify import notify
from balancerd.ports import LedgerError
from balancerd.service import Service, Setup, composed
from balancerd.steady import CLOCK

log = logging.getLogger("balancerd")

STEP_SECONDS = 0.5  # the longest a request, or the next start, has to wait
CYCLES_PER_WATCHDOG = 4  # cycles that may be missed before systemd takes the service for dead
LEAST_WATCHDOG = 120  # seconds; a cycle may have to wait for a host's deadline


class Alarm(StrEnum):
    """What may ring, the most urgent first."""

    STOP = "stop"
    RELOAD = "reload"
    NEWS = "news"  # a migration ended; its VM may stand still until that was seen to
    MAINTENANCE = "maintenance"
    CYCLE = "cycle"


class Alarms:
    """What has rung and was not served yet: each but once, however often it rang.

    Where cycles take longer than the time between them, whoever wants an end would else have to
    wait until all that rang before had been served.
    """

    def __init__(self) -> None:
        self._rung: queue.SimpleQueue[Alarm] = queue.SimpleQueue()
        self._waiting: set[Alarm] = set()

    def ring(self, alarm: Alarm) -> None:
        """From any thread, and from a signal handler."""
        self._rung.put(alarm)

    def next(self, patience: float) -> Alarm | None:
        """The most urgent one, waited for if need be; None where nothing rings in time. For one
        thread alone."""
        with suppress(queue.Empty):
            self._waiting.add(self._rung.get(timeout=0.0 if self._waiting else patience))
            while True:
                self._waiting.add(self._rung.get_nowait())
        first = next((alarm for alarm in Alarm if alarm in self._waiting), None)
        self._waiting -= {first}
        return first


class Exit:
    """Exit codes, the same as balancerctl's."""

    DONE, FAILED, INVALID, REFUSED = 0, 1, 2, 4


class Daemon:
    """The process: rings, and what is done when they do."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._alarms = Alarms()
        self._stopping = False

    def run(self) -> None:
        """Until SIGTERM or SIGINT. DocumentError, LedgerError: it could not begin."""
        setup = Setup.read(self._path)
        logging.getLogger().setLevel(setup.configuration.log_level.upper())
        setup.configuration.state_directory.mkdir(parents=True, exist_ok=True)
        with lock(setup.configuration.state_directory), self._signals():
            while not self._stopping:
                setup = self._serve(setup)
        log.info("stopped; migrations that run go on by themselves")

    @contextmanager
    def _signals(self) -> Iterator[None]:
        bells = {
            signal.SIGTERM: Alarm.STOP,
            signal.SIGINT: Alarm.STOP,
            signal.SIGHUP: Alarm.RELOAD,
        }
        before = {
            number: signal.signal(number, lambda n, _: self._alarms.ring(bells[signal.Signals(n)]))
            for number in bells
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _serve(self, setup: Setup) -> Setup:
        """Run under one configuration; the setup to go on with, if not stopping."""
        configuration = setup.configuration
        ring = partial(self._alarms.ring, Alarm.NEWS)
        cron = CronTrigger.from_crontab(configuration.maintenance, timezone=configuration.timezone)
        with composed(setup, ring) as service, self._clockwork(configuration, cron):
            watchdog = max(LEAST_WATCHDOG, CYCLES_PER_WATCHDOG * configuration.cycle)
            notify(
                READY=1, WATCHDOG_USEC=int(watchdog * 1e6), STATUS="the first cycle is under way"
            )
            names = ", ".join(host.name for host in configuration.host)
            log.info("watching %s; policy %s", names, setup.policy.name)
            if was_missed(cron, service.ledger.maintained_at(), CLOCK.now()):
                service.maintain_soon()
            service.cycle()
            while not self._stopping:
                change = self._once(service)
                if change is not None:
                    return change
        return service.setup

    @contextmanager
    def _clockwork(self, configuration: Configuration, cron: CronTrigger) -> Iterator[None]:
        scheduler = BackgroundScheduler(
            timezone="UTC",
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        interval = IntervalTrigger(seconds=configuration.cycle)
        scheduler.add_job(self._alarms.ring, interval, args=[Alarm.CYCLE])
        scheduler.add_job(self._alarms.ring, cron, args=[Alarm.MAINTENANCE])
        scheduler.start()
        try:
            yield
        finally:
            scheduler.shutdown(wait=False)

    def _once(self, service: Service) -> Setup | None:
        """Wait for one alarm and serve it; a setup that needs everything opened anew, or None."""
        match self._next_alarm(service):
            case Alarm.STOP:
                self._stopping = True
                notify(STOPPING=1, STATUS="stopping")
            case Alarm.RELOAD:
                return self._reload(service)
            case Alarm.MAINTENANCE:
                service.maintain_soon()
            case Alarm.CYCLE:
                service.cycle()
            case Alarm.NEWS | None:
                service.loop.step()
        return None

    def _next_alarm(self, service: Service) -> Alarm | None:
        """The next alarm, None for a step. A clock that was set back must not stop the cycles."""
        overdue = time.monotonic() - service.cycled > 2 * service.setup.configuration.cycle
        return self._alarms.next(STEP_SECONDS) or (Alarm.CYCLE if overdue else None)

    def _reload(self, service: Service) -> Setup | None:
        """Read the files again; the old ones stay in force where the new ones cannot be used."""
        notify(RELOADING=1, MONOTONIC_USEC=time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)
        old = service.setup
        try:
            new = Setup.read(self._path)
        except DocumentError as error:
            for problem in error.problems:
                log.error("%s", problem)
            log.error("the old configuration stays in force")
            service.note("reload", f"refused: {error.problems[0]}")
            notify(READY=1, STATUS="reload failed, the old configuration stays in force")
            return None
        if new.configuration == old.configuration:
            service.exchange(new)
            log.info("policy %s is in force", new.policy.name)
            notify(READY=1, STATUS=f"policy {new.policy.name} is in force")
            return None
        if new.configuration.state_directory != old.configuration.state_directory:
            log.error("the state directory cannot change while balancerd runs; nothing is changed")
            notify(READY=1, STATUS="reload refused: the state directory cannot change")
            return None
        if not service.note("reload", "the configuration changed"):
            # Nothing begins on a ledger that takes nothing; what has begun can go on to watch.
            log.error("the ledger cannot be written; the old configuration stays in force")
            notify(READY=1, STATUS="reload refused: the ledger cannot be written")
            return None
        logging.getLogger().setLevel(new.configuration.log_level.upper())
        log.info("the configuration changed; beginning anew with it")
        return new


def was_missed(cron: CronTrigger, last: float, now: float) -> bool:
    """Whether what a cron expression asks for, and was last done at a time, was due since.

    balancerd may have been down, or begun anew with it still waiting for migrations.
    """
    due = cron.get_next_fire_time(None, datetime.fromtimestamp(last, UTC))
    return due is not None and due.timestamp() <= now


def _set_up_logging(*, plain: bool) -> None:
    """One line per event; under systemd with its priority in front and no time, it adds its own.
    Plain: nothing but what there is to say, to somebody who waits for it."""
    under_systemd = "JOURNAL_STREAM" in os.environ
    handler = logging.StreamHandler(sys.stdout if under_systemd else sys.stderr)
    if under_systemd:
        handler.setFormatter(_JournalFormatter("%(message)s"))
    else:
        form = "%(message)s" if plain else "%(asctime)s %(levelname)-7s %(message)s"
        handler.setFormatter(logging.Formatter(form))
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    logging.getLogger("apscheduler").setLevel(logging.ERROR)


class _JournalFormatter(logging.Formatter):
    """sd-daemon(3) priorities: <3> error, <4> warning, <6> info, <7> debug."""

    def format(self, record: logging.LogRecord) -> str:
        level = 3 if record.levelno >= logging.ERROR else 4
        if record.levelno < logging.WARNING:
            level = 6 if record.levelno >= logging.INFO else 7
        return "\n".join(f"<{level}>{line}" for line in super().format(record).splitlines())


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    default=places.CONFIGURATION,
    show_default=True,
    help="The configuration file.",
)
@click.option("--check", is_flag=True, help="Check the configuration and its policy, then leave.")
@click.version_option(package_name="balancerd", prog_name="balancerd")
def main(path: Path, check: bool) -> None:
    """Watch a site of libvirt/KVM hosts and keep its VMs well placed."""
    faulthandler.enable()
    _set_up_logging(plain=check)
    sys.exit(_run(path, check=check))


def _run(path: Path, *, check: bool) -> int:
    """The exit code of the whole run; every expected error is one sentence, or one a problem."""
    try:
        if check:
            setup = Setup.read(path)
            hosts = counted(len(setup.configuration.host), "host")
            log.info("%s: %s, policy %s: %s", path, hosts, setup.policy.name, setup.policy.summary)
            return Exit.DONE
        Daemon(path).run()
    except DocumentError as error:
        for problem in error.problems:
            log.error("%s", problem)
        return Exit.INVALID
    except LedgerError as error:
        log.error("%s", error)
        return Exit.REFUSED if "another balancerd" in str(error) else Exit.FAILED
    except OSError as error:
        log.error("%s: %s", error.filename or "balancerd", error.strerror or error)
        return Exit.FAILED
    return Exit.DONE


if __name__ == "__main__":
    main()
