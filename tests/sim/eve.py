"""Eve is everybody who has a hand in a simulated life's site beside balancerd: operators with
balancerctl and virsh, VMs that crash. She acts when the life's source of chance says so.
"""

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from balancerd.adapters.sim.world import World
from balancerd.adapters.sqlite import operator
from balancerd.adapters.sqlite.ledger import Ledger
from balancerd.core.observation import Presence
from balancerd.core.past.record import Pause, Request, Verb
from balancerd.ports import BackendError

Note = Callable[[str, str], None]  # what kind of thing happened, and in words

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
    drained: set[str] = field(default_factory=set)  # hosts that were drained at any time
    begun: set[str] = field(default_factory=set)  # VMs that she began to migrate at a bad moment

    def operate(self) -> None:
        """What she does between two cycles, if anything."""
        roll = self.rng.random()
        if self.paused:
            if roll < 0.3:
                self.resume()
        elif roll < 0.02:
            operator.begin_pause(self.ledger.database, Pause(self.world.now(), "eve", "test"))
            self.paused = True
            self.note("pause", "eve pauses")
        elif roll < 0.05:
            self._migrate()
        elif roll < 0.07:
            host = self.rng.choice(self.world.site.hosts).name
            self._ask(self.rng.choice([Verb.DRAIN, Verb.UNDRAIN]), host)
            self.drained.add(host)
        elif roll < 0.08:
            self._meddle()
        elif roll < 0.09:
            self._ask(Verb.ABORT, self.rng.choice(self.world.site.vms).name)
        elif roll < 0.3:
            waiting = self.ledger.open_plans()
            if waiting:
                self._ask(Verb.APPROVE, str(waiting[-1]))

    def rest(self) -> None:
        """Leave nothing behind that would keep the site from coming to rest."""
        self.calm = True
        for vm in sorted(self.begun):  # hers that would never end
            self.world.hand.abort(vm)
        self.begun.clear()
        if self.paused:
            self.resume()

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

    def _ask(self, verb: Verb, subject: str) -> None:
        operator.ask(self.ledger.database, Request(0, self.world.now(), verb, subject, "eve"))
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

    def _is_bound(self, vm: str) -> bool:
        return vm in [one.name for one in self.world.site.vms[:BOUND]]
