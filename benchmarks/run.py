"""All benchmarks, or those named, and the tables of benchmarks/README.md.

    python benchmarks/run.py [NAME...]

Each benchmark is a script that runs alone and prints one JSON object; this one runs them after each
other, prints what they printed, and writes what was reached beside what was to be reached. One
that has no input is left out, and said to be. QUICK=1 takes the small inputs only, and leaves the
tables alone.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.tables import BENCHMARKS, Benchmark, table

HERE = Path(__file__).parent
README = HERE / "README.md"
QUICK = bool(os.environ.get("QUICK"))


def run(benchmark: Benchmark) -> Any:
    """What the script printed; None where it failed, which its own words on stderr explain."""
    command = [sys.executable, str(HERE / benchmark.script), *benchmark.arguments()]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    return None if done.returncode else json.loads(done.stdout)


def write(benchmark: Benchmark, lines: list[str]) -> None:
    """Put a table between its marks in README."""
    text = README.read_text(encoding="utf-8")
    mark = re.escape(benchmark.name)
    block = re.compile(rf"(<!-- begin {mark} -->\n).*?(<!-- end {mark} -->)", re.DOTALL)
    text, count = block.subn(lambda found: found[1] + "\n".join(lines) + "\n" + found[2], text)
    if count != 1:
        raise SystemExit(f"{README.name} has {count} places for {benchmark.name}")
    README.write_text(text, encoding="utf-8")


def main(names: list[str]) -> None:
    unknown = set(names) - {benchmark.name for benchmark in BENCHMARKS}
    if unknown:
        raise SystemExit(f"no such benchmark: {', '.join(sorted(unknown))}")
    results: dict[str, Any] = {}
    for benchmark in BENCHMARKS:
        if names and benchmark.name not in names:
            continue
        missing = benchmark.missing()
        if missing:
            print(f"{benchmark.name}: left out: {missing}", file=sys.stderr)
            continue
        print(f"{benchmark.name} ...", file=sys.stderr, flush=True)
        found = results[benchmark.name] = run(benchmark)
        if found is None:
            continue
        lines = table(benchmark.rows(found))
        print("\n".join(lines), file=sys.stderr)
        if not QUICK:
            write(benchmark, lines)
    print(json.dumps(results, indent=2))
    if failed := [name for name, found in results.items() if found is None]:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main(sys.argv[1:])
