"""The only code that changes the world: it performs the executor's commands, one at a time.

Every command that starts something carries the id of a committed intent.
"""

import logging
from collections import defaultdict
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
from balancerd.ports import Backend, BackendError, Clock, Power, PowerError
from balancerd.recorder import Recorder

log = logging.getLogger("balancerd")

UNRECORDED = "cannot be recorded, so it is not done"
_WHAT = {SetBandwidth: "bandwidth", SetDowntime: "downtime", SwitchToPostCopy: "post-copy"}


class Actuator:
    """Performs commands on a backend, a power driver and the ledger."""

    def __init__(self, backend: Backend, power: Power, recorder: Recorder, clock: Clock) -> None:
        self._backend = backend
        self._power = power
        self._recorder = recorder
        self._clock = clock
        self._told: defaultdict[str, set[str]] = defaultdict(set)  # of each VM's last migration

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
                log.error("%s is for a person: %s", command.vm, command.detail)
                recorder.event(self._clock.now(), UNSETTLED, command.vm, command.detail)
            case EndPlan():
                now = self._clock.now()
                recorder.end_plan(command.plan_id, command.state, now, command.detail)

    def _locate(self, command: Ask) -> Location:
        """What both hosts say; of one that is proven to be off, that nothing runs there."""
        location = self._backend.locate(command.vm, command.uuid, command.hosts)
        silent = [h for h, said in location.presence.items() if said is Presence.UNREACHABLE]
        if not silent or command.lasting:
            return location
        power = self._power.states(silent)
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
        self._told.pop(command.vm, None)
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
        words = f"{subject} ({hosts})"
        usual = command.announced or command.act is Act.CARRY_AUTOSTART
        level = logging.INFO if usual else logging.WARNING
        recorded = self._announce(command.vm, "settle", subject, hosts, words, level)
        if not recorded and not command.announced:
            return Acted(command.task, UNRECORDED)
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
        vm, what = command.vm, _WHAT[type(command)]
        if not isinstance(command, SetBandwidth) and not self._audit("ladder", vm, _step(command)):
            return Tuned(command.task, what, UNRECORDED)
        try:
            self._turn(command)
        except BackendError as error:
            # A migration that ends meanwhile takes no cap any more: nothing is wrong with that.
            harmless = isinstance(command, SetBandwidth)
            self._tell(vm, str(error), logging.INFO if harmless else logging.WARNING)
            return Tuned(command.task, what, str(error))
        return Tuned(command.task, what)

    def _turn(self, command: SetBandwidth | SetDowntime | SwitchToPostCopy) -> None:
        vm, source, backend = command.vm, command.source, self._backend
        match command:
            case SetBandwidth():
                backend.set_bandwidth(vm, source, command.bandwidth)
                log.info("%s may send %d MiB/s now", vm, command.bandwidth >> 20)
            case SetDowntime():
                backend.set_downtime(vm, source, command.downtime)
            case SwitchToPostCopy():
                backend.switch_to_post_copy(vm, source)

    def _influence(self, command: Watch | AbortMigration) -> None:
        """Orders whose effect shows in reports; the executor repeats one that changed nothing."""
        vm, source = command.vm, command.source
        try:
            if isinstance(command, Watch):
                log.info("watching %s on its way to %s", vm, command.target)
                self._backend.adopt(vm, source, command.target)
            elif self._audit("abort", vm, f"given up: {command.reason}"):
                self._backend.abort(vm, source)
        except BackendError as error:
            self._tell(vm, str(error), logging.WARNING)

    def _audit(self, kind: str, vm: str, detail: str) -> bool:
        """A line of the audit before the act it tells of; False: it must not be done."""
        return self._announce(vm, kind, vm, detail, f"{vm} {detail}", logging.WARNING)

    def _announce(
        self, vm: str, kind: str, subject: str, detail: str, words: str, level: int
    ) -> bool:
        """The same, for what is told in these words. What is tried again has one line, there and
        in the log."""
        if words not in self._told[vm]:
            self._recorder.event(self._clock.now(), kind, subject, detail)
        if self._recorder.broken:
            self._tell(vm, f"{words}: {UNRECORDED}", logging.WARNING)
            return False
        self._tell(vm, words, level)
        return True

    def _tell(self, vm: str, words: str, level: int) -> None:
        """Say something of a VM's migration, once."""
        if words not in self._told[vm]:
            self._told[vm].add(words)
            log.log(level, "%s", words)


def _step(command: SetDowntime | SwitchToPostCopy) -> str:
    """A step of a ladder in words."""
    if isinstance(command, SetDowntime):
        return f"may pause for {command.downtime * 1000:.0f} ms: {command.reason}"
    return f"goes on in post-copy: {command.reason}"
