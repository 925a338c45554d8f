"""Records of small simulated sites, made through the real loop and the real ledger."""

import io
import os
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from balancerd.adapters.sim.scenario import Scenario
from balancerd.adapters.sim.site import Site, build
from balancerd.adapters.sqlite.ledger import Ledger
from balancerd.adapters.sqlite.samples import SamplesStore
from balancerd.cli.root import run
from balancerd.core.policies.policy import Policy
from balancerd.documents import parse
from balancerd.simulation import Result, simulate

SCENARIO = """\
name = "small"
summary = "4 hosts, 12 VMs, and nothing much to do"
start = "2026-03-02T00:00:00+00:00"
duration = "1h"
cycle = "60s"
[[hosts]]
name = "h%d"
count = 4
cores = 16
memory = "64 GiB"
power_curve = [50, 150]
[[flavours]]
count = 12
vcpus = 2
cpu = 2
memory = "4 GiB"
"""
POLICY = """\
summary = "for tests"
mode = "act"
objective = "pack"
[power]
sleep_idle = true
reserve = 1
"""


def small_site() -> Site:
    """Four hosts, two of them empty, and a third that `pack` empties."""
    return build(parse(SCENARIO, Scenario, "small.toml"))


def policy(text: str = POLICY) -> Policy:
    """A policy by the name of "tested"."""
    return parse(text, Policy, "tested.toml").model_copy(update={"name": "tested"})


def make_record(directory: Path) -> Result:
    """An hour of the small site under `pack`: some migrations, some hosts put to sleep."""
    with (
        Ledger(directory / "ledger.db", durable=False, site="small") as ledger,
        SamplesStore(directory / "samples.db", durable=False) as samples,
    ):
        ledger.record_policy("tested", POLICY, small_site().scenario.start)
        return simulate(small_site(), policy(), ledger, samples)


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended and what it wrote."""

    returncode: int
    stdout: str
    stderr: str


def balancerctl(*arguments: str | Path, record: Path | None = None) -> Done:
    """Run a command line inside this process, which is quicker than to start one each time."""
    out, err = io.StringIO(), io.StringIO()
    before = os.environ.pop("BALANCERD_RECORD", None)
    if record is not None:
        os.environ["BALANCERD_RECORD"] = str(record)
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = run([str(argument) for argument in arguments])
    finally:
        os.environ.pop("BALANCERD_RECORD", None)
        if before is not None:
            os.environ["BALANCERD_RECORD"] = before
    return Done(code, out.getvalue(), err.getvalue())
