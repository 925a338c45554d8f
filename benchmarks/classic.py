"""The classic consolidation day, each day of a directory of traces under the shipped policy.

    python benchmarks/classic.py [DIR] [--scenario FILE]

DIR has a folder, or an archive, for each day in PlanetLab form; without it BALANCERD_BENCH_TRACES
is taken. QUICK=1 takes only the first day. Prints one JSON object.
"""

import json
import sys
from pathlib import Path

from balancerd.config import load_policy
from balancerd.engines import planner
from benchmarks.world import days, live, medians

HERE = Path(__file__).parent
POLICY = HERE.parent / "policies" / "consolidate.toml"


def main(arguments: list[str]) -> None:
    scenario = HERE / "classic.toml"
    if "--scenario" in arguments:
        at = arguments.index("--scenario")
        scenario = Path(arguments[at + 1])
        del arguments[at : at + 2]
    policy = load_policy(POLICY)
    with days(arguments) as traces:
        lived = {day: live(scenario, trace, policy, planner) for day, trace in traces.items()}
    print(
        json.dumps({"scenario": scenario.stem, "median": medians(lived), "days": lived}, indent=2)
    )


if __name__ == "__main__":
    main(sys.argv[1:])
