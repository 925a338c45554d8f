"""The only code that changes the world: it performs the executor's commands, one at a time.

Every command that starts something carries the id of a committed intent.
"""

import logging
from dataclasses import replace

from balancerd.core.executing.messages import (
    AbortMigration,
    Acted,
    Ask,
    Command,
    Conclude,
    EndPlan,
    Event,
    Intend,
    Intended,
    Located,
    NoteProgress,
    SetBandwidth,
    SetDowntime,
    Settle,
    StartMigration,
    StartRefused,
    SwitchPower,
    SwitchToPostCopy,
    Tuned,
    Unsettled,
    Watch,
)
from balancerd.core.executing.reconcile import Act
from balancerd.core.model import PowerState
from balancerd.core.observation import Location, Preflight, Presence
from balancerd.core.past.record import UNSETTLED
from balancerd.ports import Backend, BackendError, Clock, LedgerError, Power, PowerError
from balancerd.recorder import Recorder

log = logging.getLogger("balancerd")

_WHAT = {SetBandwidth: "bandwidth", SetDowntime: "downtime", SwitchToPostCopy: "post-copy"}


class Actuator:
    """Performs commands on a backend, a power driver and the ledger."""

    def __init__(self, backend: Backend, power: Power, recorder: Recorder, clock: Clock) -> None:
        self._backend = backend
        self._power = power
        self._recorder = recorder
        self._clock = clock

    def perform(self, command: Command) -> Event | None:
        """Do one command; what came of it, where the executor has to know at once."""
        match command:
            case Ask():
                return Located(command.task, self._locate(command), self._preflight(command))
            case Intend():
                ledger = self._recorder.ledger
                return Intended(command.task, self._recorder.keep(ledger.intend, command.intent))
            case StartMigration():
                return self._start(command)
            case SwitchPower():
                return self._switch(command)
            case Settle():
                return self._settle(command)
            case SetBandwidth() | SetDowntime() | SwitchToPostCopy():
                return self._tune(command)
            case Watch() | AbortMigration():
                self._influence(command)
            case _:
                self._note(command)
        return None

    def _note(self, command: Conclude | NoteProgress | Unsettled | EndPlan) -> None:
        """Only for the record."""
        recorder, ledger = self._recorder, self._recorder.ledger
        match command:
            case Conclude():
                recorder.conclude(command.conclusion)
            case NoteProgress():
                recorder.keep(ledger.record_progress, command.intent, command.report)
            case Unsettled():
                log.error("%s: what became of it is for a person: %s", command.vm, command.detail)
                recorder.event(self._clock.now(), UNSETTLED, command.vm, command.detail)
            case EndPlan():
                log.info("plan %d %s: %s", command.plan_id, command.state, command.detail)
                now = self._clock.now()
                recorder.keep(
                    ledger.set_plan_state, command.plan_id, command.state, now, command.detail
                )

    def _locate(self, command: Ask) -> Location:
        """What both hosts say; of one that is proven to be off, that nothing runs there."""
        location = self._backend.locate(command.vm, command.uuid, command.hosts)
        silent = [h for h, said in location.presence.items() if said is Presence.UNREACHABLE]
        if not silent or command.lasting:
            return location
        try:
            power = self._power.states(silent)
        except PowerError as error:
            log.warning("power states: %s", error)
            return location
        off = {h: Presence.ABSENT for h in silent if power.get(h) is PowerState.OFF}
        return replace(location, presence={**location.presence, **off})

    def _preflight(self, command: Ask) -> Preflight | None:
        """What source and target say to a migration that is about to start."""
        if command.method is None:
            return None
        source, target = command.hosts[:2]
        return self._backend.preflight(command.vm, command.uuid, source, target, command.method)

    def _start(self, command: StartMigration) -> Event | None:
        log.info("moving %s from %s to %s", command.vm, command.source, command.target)
        try:
            self._backend.migrate(
                command.vm,
                command.source,
                command.target,
                command.method,
                command.bandwidth,
                command.downtime,
                hand_over=command.hand_over,
            )
        except BackendError as error:
            return StartRefused(command.task, str(error))
        return None

    def _switch(self, command: SwitchPower) -> Event | None:
        log.info("%s %s", "waking" if command.wake else "putting to sleep", command.host)
        try:
            (self._power.wake if command.wake else self._power.sleep)(command.host)
        except PowerError as error:
            return StartRefused(command.task, str(error))
        return None

    def _settle(self, command: Settle) -> Event:
        """Carry out one act of the state-pair table, once the audit has it."""
        subject = f"{command.vm}: {command.act}"
        hosts = f"source {command.source}, target {command.target}"
        self._recorder.event(self._clock.now(), "settle", subject, hosts)
        if self._recorder.broken and not command.announced:
            return Acted(command.task, "cannot be recorded, so it is not done")
        log.log(logging.INFO if command.announced else logging.WARNING, "%s (%s)", subject, hosts)
        try:
            self._act(command)
        except BackendError as error:
            return Acted(command.task, str(error))
        return Acted(command.task)

    def _act(self, command: Settle) -> None:
        vm, source, target, backend = command.vm, command.source, command.target, self._backend
        match command.act:
            case Act.RESUME_SOURCE:
                backend.resume(vm, source)
            case Act.RESUME_TARGET:
                backend.resume_arrived(vm, target)
            case Act.DESTROY_SOURCE:
                backend.destroy(vm, source)
            case Act.DESTROY_TARGET:
                backend.destroy(vm, target)
            case Act.UNDEFINE_SOURCE:
                backend.undefine(vm, source)
            case Act.UNDEFINE_TARGET:
                backend.undefine(vm, target)
            case Act.CARRY_AUTOSTART:
                backend.set_autostart(vm, target, command.autostart)

    def _tune(self, command: SetBandwidth | SetDowntime | SwitchToPostCopy) -> Event:
        """Change a running migration. Caps change often; the steps of a ladder are audited."""
        vm, source, backend = command.vm, command.source, self._backend
        try:
            match command:
                case SetBandwidth():
                    backend.set_bandwidth(vm, source, command.bandwidth)
                    log.info("%s may send %d MiB/s now", vm, command.bandwidth >> 20)
                    return Tuned(command.task, "bandwidth")
                case SetDowntime():
                    pause = f"may pause for {command.downtime * 1000:.0f} ms"
                    self._audit("ladder", vm, f"{pause}: {command.reason}")
                    backend.set_downtime(vm, source, command.downtime)
                    return Tuned(command.task, "downtime")
                case SwitchToPostCopy():
                    self._audit("ladder", vm, f"goes on in post-copy: {command.reason}")
                    backend.switch_to_post_copy(vm, source)
                    return Tuned(command.task, "post-copy")
        except (BackendError, LedgerError) as error:
            # A migration that ends meanwhile takes no cap any more: nothing is wrong with that.
            harmless = isinstance(command, SetBandwidth) and isinstance(error, BackendError)
            log.log(logging.INFO if harmless else logging.WARNING, "%s", error)
            return Tuned(command.task, _WHAT[type(command)], str(error))

    def _audit(self, kind: str, subject: str, detail: str) -> None:
        """A line of the audit before the act it tells of; LedgerError: it must not be done."""
        log.warning("%s %s", subject, detail)
        self._recorder.event(self._clock.now(), kind, subject, detail)
        if self._recorder.broken:
            raise LedgerError("cannot be recorded, so it is not done")

    def _influence(self, command: Watch | AbortMigration) -> None:
        """Orders whose effect shows in reports; the executor repeats one that changed nothing."""
        try:
            if isinstance(command, Watch):
                log.info("watching %s on its way to %s", command.vm, command.target)
                self._backend.adopt(command.vm, command.source, command.target)
                return
            self._audit("abort", command.vm, f"given up: {command.reason}")
            self._backend.abort(command.vm, command.source)
        except (BackendError, LedgerError) as error:
            log.warning("%s", error)
