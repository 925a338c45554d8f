"""Eve is everybody who has a hand in a simulated life's site beside balancerd: operators with
balancerctl and virsh, VMs that crash. She acts when the life's source of chance says so.
"""

import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType

from balancerd.adapters.sim.world import World
from balancerd.adapters.sqlite import operator
from balancerd.adapters.sqlite.ledger import Ledger
from balancerd.core.observation import Presence
from balancerd.core.past.record import UNSETTLED, Pause, Request, Verb
from balancerd.ports import BackendError

Note = Callable[[str, str], None]  # what kind of thing happened, and in words

NONE: Mapping[str, str] = MappingProxyType({})
BY_FORCE = MappingProxyType({"force_complete": "yes"})
_TOLD = "SELECT 1 FROM events WHERE kind = ? AND subject = ? AND at >= ?"
IMPATIENCE = 0.2  # share of migrations that she hurries from the start
BOUND = 3  # so many VMs, the first ones, are bound by rules: nobody moves or starts them by hand


@dataclass
class Eve:
    """What she may do, and what she did that others have to know of."""

    world: World
    ledger: Ledger
    rng: random.Random
    note: Note
    locked: bool  # something forbids two copies of a VM to write to its disks
    rivalry: float  # how often she is quicker than balancerd with a migration
    calm: bool = False  # she begins nothing any more
    paused: bool = False
    approved: set[int] = field(default_factory=set)  # plans
    drained: set[str] = field(default_factory=set)  # hosts that were drained at any time
    begun: set[str] = field(default_factory=set)  # VMs that she began to migrate at a bad moment
    gone: set[str] = field(default_factory=set)  # VMs that she removed everywhere

    def operate(self) -> None:
        """What she does between two cycles, if anything."""
        roll = self.rng.random()
        if self.paused:
            if roll < 0.3:
                self.resume()
            return
        act = next((act for chance, act in self._habits() if roll < chance), None)
        if act:
            act()

    def _habits(self) -> tuple[tuple[float, Callable[[], None]], ...]:
        """What she does, each up to which share of the times."""
        return (
            (0.02, self._pause),
            (0.05, self._migrate),
            (0.07, self._drain),
            (0.08, self._meddle),
            (0.09, self._abort),
            (0.11, self._hurry),
            (0.12, self._reject),
            (0.13, self._close),
            (0.30, self._approve),
            (0.40, self._recover),
            (0.42, self.remove),
            (0.45, self._create),
        )

    def rest(self) -> None:
        """Leave nothing behind that would keep the site from coming to rest."""
        self.calm = True
        for vm in sorted(self.begun):  # hers that would never end
            self.world.hand.abort(vm)
        self.begun.clear()
        self._recover()
        self._settle()
        if self.paused:
            self.resume()

    def _pause(self) -> None:
        operator.begin_pause(self.ledger.database, Pause(self.world.now(), "eve", "test"))
        self.paused = True
        self.note("pause", "eve pauses")

    def resume(self) -> None:
        """End the pause."""
        operator.end_pauses(self.ledger.database, self.world.now(), "eve")
        self.paused = False
        self.note("resume", "eve resumes")

    def be_quicker(self, vm: str, target: str) -> None:
        """Begin a migration of hers between balancerd's check and its start of one."""
        if self.calm or self._is_bound(vm) or self.rng.random() >= self.rivalry:
            return
        others = [host.name for host in self.world.site.hosts if host.name != target]
        theirs = self.rng.choice([target, *others])
        self.world.hand.migrate(vm, theirs, cap=self.rng.choice([0.0, 2e6, 6e6]))
        self.begun.add(vm)
        self.note("rival migration", f"eve moves {vm} to {theirs} by hand, at the worst moment")

    def _drain(self) -> None:
        host = self.rng.choice(self.world.site.hosts).name
        self._ask(self.rng.choice([Verb.DRAIN, Verb.UNDRAIN]), host)
        self.drained.add(host)

    def _abort(self) -> None:
        self._ask(Verb.ABORT, self._one_that_moves())

    def _hurry(self) -> None:
        by_force = self.rng.random() < 0.7
        self._ask(Verb.HURRY, self._one_that_moves(), BY_FORCE if by_force else NONE)

    def _reject(self) -> None:
        for plan in self.ledger.open_plans()[-1:]:
            self._ask(Verb.REJECT, str(plan))

    def _approve(self) -> None:
        for plan in self.ledger.open_plans()[-1:]:
            self._ask(Verb.APPROVE, str(plan))
            self.approved.add(plan)

    def _one_that_moves(self) -> str:
        """A VM that is being moved, if there is any."""
        moving = [vm for vm, _, _ in self.world.ours()]
        return self.rng.choice(moving or [vm.name for vm in self.world.site.vms])

    def _recover(self) -> None:
        """Bring the two halves of VMs together again that post-copy left on two hosts."""
        for vm in self.world.torn():
            self.world.hand.recover(vm)
            if vm not in self.world.torn():
                self.note("post-copy recovered", f"eve recovers {vm}")

    def _close(self) -> None:
        for intent in self.ledger.recover():
            if intent.vm:
                self._ask(Verb.CLOSE, intent.vm)

    def _settle(self) -> None:
        """See to what people are told of, and say so: a VM that stands still on its source."""
        for intent in self.ledger.recover():
            told = self.ledger.database.rows(_TOLD, [UNSETTLED, intent.vm, intent.at])
            if told and not self._is_asked(intent.vm):
                self.world.hand.abort(intent.vm)
                self._ask(Verb.CLOSE, intent.vm)
                if not self.world.running(intent.vm) and intent.vm not in self.gone:
                    self.world.hand.start(intent.vm, intent.host)

    def _is_asked(self, vm: str) -> bool:
        return any(request.subject == vm for request in self.ledger.requests())

    def press(self, vm: str) -> None:
        """Be impatient with a migration that balancerd has just begun."""
        if not self.calm and self.rng.random() < IMPATIENCE:
            self._ask(Verb.HURRY, vm, BY_FORCE if self.rng.random() < 0.7 else NONE)

    def _ask(self, verb: Verb, subject: str, how: Mapping[str, str] = NONE) -> None:
        asked = Request(0, self.world.now(), verb, subject, "eve", how)
        operator.ask(self.ledger.database, asked)
        self.note(str(verb), f"eve: {verb} {subject}")

    def _migrate(self) -> None:
        """Her own virsh, at any time; not for VMs that a rule binds.

        Nor where nothing locks disks: her migrations hand nothing over, and may end in two copies.
        """
        if not self.locked:
            return
        vm = self.rng.choice(self.world.site.vms[BOUND:]).name
        hosts = self.world.running(vm)
        if not hosts:
            return
        elsewhere = [host.name for host in self.world.site.hosts if host.name not in hosts]
        target = self.rng.choice(elsewhere)
        with suppress(BackendError):  # her libvirt may say no, too
            self.world.hand.migrate(vm, target)
            self.note("migration by hand", f"eve moves {vm} to {target} by hand")

    def _meddle(self) -> None:
        """Stop VMs and abort moves, leave definitions lying about; VMs crash."""
        site = self.world.site
        vm, host = self.rng.choice(site.vms).name, self.rng.choice(site.hosts).name
        act = self.rng.choice(["pause", "shut_off", "crash", "define", "abort", "start"])
        if act == "define":
            self.world.hand.define(vm, host)
        elif act == "start":
            self._start_where_it_is_defined(vm)
        else:
            getattr(self.world.hand, act)(vm)
        self.note(f"{act} by hand", f"eve: {act} {vm} {host}")

    def _start_where_it_is_defined(self, vm: str) -> None:
        """Her `virsh start` of what is shut off; not for VMs that a rule binds."""
        off = [at for at, copy in self.world.copies(vm).items() if copy is Presence.SHUTOFF]
        if off and not self._is_bound(vm):
            self.world.hand.start(vm, self.rng.choice(off))

    def remove(self) -> None:
        """Undefine what is shut off, as far as its hosts answer; not VMs that a rule binds."""
        off = [vm.name for vm in self.world.site.vms[BOUND:] if self._is_off(vm.name)]
        if not off:
            return
        vm = self.rng.choice(off)
        for host in self.world.copies(vm):
            self.world.hand.undefine(vm, host)
        if not self.world.copies(vm):
            self.gone.add(vm)
        self.note("undefine by hand", f"eve removes {vm}")

    def _is_off(self, vm: str) -> bool:
        copies = self.world.copies(vm)
        return bool(copies) and set(copies.values()) <= {Presence.SHUTOFF}

    def _create(self) -> None:
        """A VM that was gone is made anew, on any host, and started."""
        if not self.gone:
            return
        vm = self.rng.choice(sorted(self.gone))
        host = self.rng.choice(self.world.site.hosts).name
        self.world.hand.define(vm, host)
        self.world.hand.start(vm, host)
        if self.world.copies(vm):
            self.gone.remove(vm)
            self.note("create by hand", f"eve makes {vm} on {host}")

    def _is_bound(self, vm: str) -> bool:
        return vm in [one.name for one in self.world.site.vms[:BOUND]]
