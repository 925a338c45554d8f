"""The ledger against a model of a few dicts, under any order of calls, crashes and undone batches.

Seen to fail with: an intent allowed while a pause stands, conclusions not added to the history in
memory, a rollback that the caches do not notice, an end of a pause that forgets the others.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from balancerd.adapters.sqlite import operator
from balancerd.adapters.sqlite.ledger import Ledger
from balancerd.adapters.sqlite.reader import Reader
from balancerd.core.model import Method, PowerState, Snapshot
from balancerd.core.outcome import Outcome
from balancerd.core.past.history import REMEMBERED, PastMove
from balancerd.core.past.record import Conclusion, Intent, IntentKind, Pause, Request, Verb
from balancerd.core.plan import Move
from balancerd.core.units import DAY, MINUTE
from balancerd.ports import LedgerError
from tests.sites import NOW, done, site

SITE = site("h1 16c 64G: a 1c 1G, b 1c 1G | h2 16c 64G: c 1c 1G | h3 16c 64G:")
HOSTS = st.sampled_from(["h1", "h2", "h3"])
VMS = st.sampled_from(["a", "b", "c"])


class UndoneError(Exception):
    """Ends a batch."""


class LedgerMachine(RuleBasedStateMachine):
    """Each rule does one thing to the ledger and to the model."""

    @initialize()
    def begin(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "ledger.db"
        self.ledger = Ledger(self.path, durable=False).__enter__()
        self.now = NOW
        self.open: dict[int, Intent] = {}
        self.moves: list[PastMove] = []
        self.pauses: list[Pause] = []
        self.requests: list[Request] = []
        self.draining: set[str] = set()
        self.powers: dict[PowerState, dict[str, float]] = {PowerState.ON: {}, PowerState.OFF: {}}
        self.newest: dict[str, PowerState] = {}
        self.snapshot: Snapshot | None = None

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.database.close()
            self.directory.cleanup()

    def stands(self, pause: Pause) -> bool:
        return pause.until is None or pause.until > self.now

    @rule(seconds=st.sampled_from([1.0, MINUTE, DAY, 4 * DAY]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def restart(self) -> None:
        self.ledger.database.close()
        self.ledger = Ledger(self.path, durable=False).__enter__()

    @rule(vm=VMS, source=HOSTS, destination=HOSTS)
    def intend(self, vm: str, source: str, destination: str) -> None:
        intent = Intent(IntentKind.MIGRATE, self.now, source, vm, target=destination)
        number = self.ledger.intend(intent)
        assert (number is None) == any(self.stands(pause) for pause in self.pauses)
        if number is not None:
            assert number not in self.open
            self.open[number] = replace(intent, id=number)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), outcome=st.sampled_from(Outcome))
    def conclude(self, data: st.DataObject, outcome: Outcome) -> None:
        intent = self.open.pop(data.draw(st.sampled_from(sorted(self.open))))
        conclusion = Conclusion(intent.id, self.now, outcome)
        self.ledger.conclude(conclusion)
        self.moves.append(PastMove(intent.vm, intent.host, intent.target, self.now, outcome))
        with pytest.raises(LedgerError):
            self.ledger.conclude(conclusion)

    @rule(span=st.sampled_from([None, MINUTE, 2 * DAY]))
    def pause(self, span: float | None) -> None:
        pause = Pause(self.now, "ann", "", None if span is None else self.now + span)
        operator.begin_pause(self.ledger.database, pause)
        self.pauses.append(pause)

    @rule()
    def resume(self) -> None:
        ended = operator.end_pauses(self.ledger.database, self.now, "ann")
        assert ended == sum(self.stands(pause) for pause in self.pauses)
        self.pauses = []

    @rule(host=HOSTS, draining=st.booleans())
    def drain(self, host: str, draining: bool) -> None:
        self.ledger.set_draining(host, draining, self.now)
        (self.draining.add if draining else self.draining.discard)(host)

    @rule(verb=st.sampled_from(Verb), subject=HOSTS)
    def ask(self, verb: Verb, subject: str) -> None:
        request = Request(0, self.now, verb, subject, "ann")
        number = operator.ask(self.ledger.database, request)
        self.requests.append(replace(request, id=number))

    @precondition(lambda self: self.requests)
    @rule(accepted=st.booleans())
    def answer(self, accepted: bool) -> None:
        self.ledger.answer(self.requests.pop(0).id, self.now, accepted, "")

    @rule(vm=VMS, place=HOSTS)
    def observe(self, vm: str, place: str) -> None:
        snapshot = self.snapshot or SITE
        if (source := snapshot.cluster.placement[vm]) != place:
            snapshot = done(snapshot, Move(1, vm, source, place, Method.PRE_COPY, ""))
        self.snapshot = replace(snapshot, at=self.now)
        self.ledger.record_inventory(self.snapshot)

    @rule(host=HOSTS, state=st.sampled_from([PowerState.ON, PowerState.OFF]))
    def power(self, host: str, state: PowerState) -> None:
        self.ledger.record_power(host, state, self.now)
        if self.newest.get(host) is not state:
            self.powers[state][host] = self.now
        self.newest[host] = state

    @rule(vm=VMS)
    def undo(self, vm: str) -> None:
        """A batch that fails at its end, whatever was done in it."""
        other = done(self.snapshot or SITE, Move(1, vm, "h1", "h3", Method.PRE_COPY, ""))
        with pytest.raises(UndoneError), self.ledger.batch():
            intent = Intent(IntentKind.MIGRATE, self.now, "h1", vm, target="h2")
            number = self.ledger.intend(intent)
            if number is not None:
                self.ledger.conclude(Conclusion(number, self.now, Outcome.DONE))
            self.ledger.record_power("h1", PowerState.OFF, self.now + 1)
            self.ledger.set_draining("h1", "h1" not in self.draining, self.now)
            self.ledger.record_inventory(replace(other, at=self.now))
            raise UndoneError

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "ledger"):
            return
        assert self.ledger.recover() == tuple(self.open.values())
        assert self.ledger.requests() == tuple(self.requests)
        assert self.ledger.draining() == self.draining
        history = self.ledger.history(self.now)
        assert history.moves == tuple(m for m in self.moves if m.at > self.now - REMEMBERED)
        on, off = self.powers[PowerState.ON], self.powers[PowerState.OFF]
        assert history.woken == {host: at for host, at in on.items() if host in off}
        assert history.slept == self.powers[PowerState.OFF]
        standing = [pause for pause in self.pauses if self.stands(pause)]
        pause = self.ledger.pause(self.now)
        assert (pause in standing) if standing else pause is None
        self.placed()

    def placed(self) -> None:
        rows = self.ledger.database.rows("SELECT vm, host FROM placements WHERE until_at IS NULL")
        known = {} if self.snapshot is None else dict(self.snapshot.cluster.placement)
        assert {row["vm"]: row["host"] for row in rows} == known
        assert set(self.ledger.history(self.now).idle_since) == (
            {"h1", "h2", "h3"} - set(known.values()) if known else set()
        )

    @invariant()
    def is_sealed(self) -> None:
        if hasattr(self, "ledger"):
            assert Reader(self.ledger.database).audit().fault == ""


LedgerMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestLedger = LedgerMachine.TestCase
