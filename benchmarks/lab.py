"""What balancerd costs on real hosts: those of `tests/lab`, libvirtd and QEMU in namespaces.

    sudo python benchmarks/lab.py [overhead] [restart] [hung]

`overhead`: one VM goes to and fro between two hosts with the same cap and longest pause, in turn
by `virsh migrate` and by the `balancerd` process. Ours counts from the committed intent to the
recorded outcome, with both hosts asked; theirs is the time of the command. `restart`: balancerd
is killed (-9) in the middle of a migration; how long until its successor has adopted it, has a
whole cycle behind it and a record that verifies. `hung`: the cycles of balancerd while one of
three libvirtds stands still (SIGSTOP), against those between. Prints one JSON object.
"""

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

import psutil

from balancerd.adapters.sqlite.database import Access, Database
from balancerd.adapters.sqlite.proof import verify
from balancerd.adapters.sqlite.schema import LEDGER
from tests.lab.rig import Guest, GuestSpec, Load, Rig
from tests.lab.service import Service, policy

PAIRS, KILLS = 6, 5  # migrations of each kind; restarts
CAP, SLOW = 5, 2  # MiB/s: of migrations that are measured, and of those that outlive a restart
CYCLE, CYCLES, ROUNDS = 10, 9, 2  # seconds; cycles of each block; blocks of each kind
SPEC = GuestSpec(memory_mib=192, load=Load(working_set_mib=120))  # most of its memory is in use
LIMITS = """cooldown = "1s"
per_vm_per_day = 1000
per_vm_per_week = 1000

[ladder.normal]
downtime = "300ms"
step = [{ stalls = 10, then = "abort" }]
"""  # QEMU's own pause, so that both kinds of migration end after as many rounds
Found = dict[str, Any]


def main(names: Sequence[str]) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # hosts and balancerd end with us
    chosen = [name for name in MEASURES if not names or name in names]
    print(json.dumps({name: MEASURES[name]() for name in chosen}, indent=2))


@contextmanager
def service(rig: Rig, cap: int = CAP, cycle: int = 2) -> Iterator[Service]:
    """A balancerd that moves nothing unless a host is drained."""
    with tempfile.TemporaryDirectory(prefix="balancerd-") as directory:
        limits = f'bandwidth = "{cap} MiB/s"\n{LIMITS}'
        running = Service(rig, Path(directory), policy("quiet", limits=limits), cycle)
        try:
            yield running
        except BaseException:
            with redirect_stdout(sys.stderr):
                running.tell()
            raise
        finally:
            running.kill()


# overhead


def overhead() -> Found:
    """Seconds of migrations by virsh and by balancerd, in turn, and the ratio of the medians."""
    with Rig.free(hosts=2) as rig, service(rig) as running:
        guest = rig.start("a", "h1", SPEC)
        theirs: list[Found] = []
        ours: list[Found] = []
        for turn in range(PAIRS):  # each kind goes both ways, and is first as often as second
            both: list[Callable[[], None]] = [
                lambda: theirs.append(by_virsh(guest)),
                lambda: ours.append(by_balancerd(running, guest)),
            ]
            for each in both if turn % 4 in (0, 3) else reversed(both):
                each()
    virsh, balancerd = (median(one["seconds"] for one in kind) for kind in (theirs, ours))
    return {
        "cap_bytes_per_s": CAP << 20,
        "virsh_seconds": virsh,
        "balancerd_seconds": balancerd,
        "ratio": balancerd / virsh,
        "call_seconds": median(one["call_seconds"] for one in ours),
        "virsh": theirs,
        "balancerd": ours,
    }


def by_virsh(guest: Guest) -> Found:
    """One migration to the other host, as an operator would do it; no balancerd is running."""
    source = guest.host()
    (target,) = (host for host in guest.rig.hosts if host.name != source.name)
    options = ["--live", "--p2p", "--persistent", "--undefinesource", "--bandwidth", str(CAP)]
    ways = [guest.name, target.uri, "--migrateuri", target.migration_uri]
    argv = source.entering(["virsh", "migrate", *options, *ways])
    begun = time.monotonic()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, timeout=300)
    seconds = time.monotonic() - begun
    sent = target.ask(lambda c: c.lookupByName(guest.name).jobStats(1)["data_processed"])
    return {"seconds": round(seconds, 3), "bytes": sent}


def by_balancerd(running: Service, guest: Guest) -> Found:
    """One migration to the other host, because its own is drained."""
    source = guest.host().name
    running.start()
    before = len(running.migrations())
    running.ctl("drain", source)
    running.until(lambda: len(done(running)) > before, 300, "end of the migration")
    running.ctl("undrain", source)
    running.after_cycles(1)
    running.stop()
    (row,) = done(running)[: len(done(running)) - before]
    assert row["outcome"] == "done", row
    took = row["ended_at"] - row["begun_at"]
    return {"seconds": round(took, 3), "bytes": row["bytes"], "call_seconds": row["seconds"]}


def done(running: Service) -> list[Found]:
    """The migrations that ended, the newest first; times are seconds since the epoch."""
    ended = "SELECT * FROM migrations WHERE ended_at IS NOT NULL ORDER BY id DESC"
    return running.recorded(ended)


# restart


def restart() -> Found:
    """Seconds from the start of the next balancerd until all is settled, the median and each."""
    with Rig.free(hosts=2) as rig, service(rig, SLOW) as running:
        guest = rig.start("a", "h1", SPEC)
        each = [killed(running, guest) for _ in range(KILLS)]
    return {
        "settled_seconds": median(one["seconds"] for one in each),
        "longest_seconds": max(one["seconds"] for one in each),
        "cpu_seconds": median(one["cpu_seconds"] for one in each),
        "each": each,
    }


def killed(running: Service, guest: Guest) -> Found:
    """Kill balancerd in mid-migration and start it again: seconds until it is settled, and how many
    of a CPU it used till then."""
    source = guest.host().name
    running.start()
    ended = len(done(running))
    running.ctl("drain", source)
    running.until(lambda: len(guest.where()) == 2, 120, "migration")
    time.sleep(2.0)
    running.stop(signal.SIGKILL)
    assert len(done(running)) == ended
    cycles, told = running.cycles(), len(running.log.read_text())
    begun = time.monotonic()
    running.launch()
    running.until(
        lambda: f"watching {guest.name}" in running.log.read_text()[told:], 60, "adoption"
    )
    running.until(lambda: running.cycles() > cycles, 60, "cycle")
    consistent(running)
    took = time.monotonic() - begun
    assert running.process is not None
    used = sum(psutil.Process(running.process.pid).cpu_times()[:2])
    running.until(lambda: len(done(running)) > ended, 120, "end of the migration")
    newest = done(running)[0]
    assert newest["outcome"] == "done" and newest["adopted"], newest
    running.ctl("undrain", source)
    running.after_cycles(1)
    running.stop()
    return {"seconds": round(took, 3), "cpu_seconds": round(used, 3)}


def consistent(running: Service) -> None:
    """The audit verifies, and the one migration is open."""
    with Database(running.ledger, LEDGER, Access.READ) as database:
        assert not verify(database).fault
    assert len(running.recorded("SELECT id FROM open_intents")) == 1


# hung


def hung() -> Found:
    """Cycles with one libvirtd that stands still against those without, block by block."""
    whole: list[tuple[float, float]] = []
    broken: list[tuple[float, float]] = []
    with Rig.free(hosts=3) as rig, service(rig, cycle=CYCLE) as running:
        rig.start_all({f"on-{host.name}": (host.name, GuestSpec()) for host in rig.hosts})
        running.start()
        running.after_cycles(2)
        for _ in range(ROUNDS):
            whole += block(running)
            rig.host("h3").freeze_libvirtd()
            broken += block(running)
            rig.host("h3").thaw_libvirtd()
            running.after_cycles(3)  # what it missed is over
    return {
        "cycle_seconds": CYCLE,
        "cycles": len(broken),
        "interval": ratio(mean, [i for i, _ in whole], [i for i, _ in broken]),
        "work": ratio(median, [w for _, w in whole], [w for _, w in broken]),
        "longest_work_seconds": max(work for _, work in broken),
    }


def block(running: Service) -> list[tuple[float, float]]:
    """Of the cycles to come: seconds since the one before, and seconds of work."""
    running.after_cycles(CYCLES)
    newest = f"SELECT at, seconds FROM cycles ORDER BY id DESC LIMIT {CYCLES + 1}"
    last = sorted((row["at"], row["seconds"]) for row in running.recorded(newest))
    return [(at - before, work) for (before, _), (at, work) in pairwise(last)]


def ratio(
    middle: Callable[[Sequence[float]], float], whole: list[float], broken: list[float]
) -> Found:
    """The middle of each kind, and by how much one exceeds the other."""
    return {
        "whole_seconds": middle(whole),
        "hung_seconds": middle(broken),
        "ratio": middle(broken) / middle(whole),
    }


MEASURES = {"overhead": overhead, "restart": restart, "hung": hung}


if __name__ == "__main__":
    main(sys.argv[1:])
