"""A plan as a person reads it: what for, the hosts before and after, each action, and why not."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from balancerd.cli.output import Column, Listing, Row, draw
from balancerd.cli.words import (
    NOTHING,
    duration,
    milliseconds,
    moment,
    number,
    percent,
    predicted,
    size,
)
from balancerd.core.files.codec import to_milliseconds
from balancerd.core.model import Method
from balancerd.core.plan import Certificate, HostFigures, Move, Plan, Refusal, Sleep, Verdict
from balancerd.core.units import counted

if TYPE_CHECKING:
    from rich.console import Console

REFUSALS_SHOWN = 10
STYLES = {"overloaded": "red", "unknown": "yellow", "draining": "yellow", "asleep": "dim"}


def draw_plan(where: "Console", plan: Plan, heading: str, *, all_hosts: bool = False) -> None:
    """Draw a plan; hosts that it does not change are only counted, unless asked for."""
    where.print(heading, style="bold")
    where.print(plan.reason[:1].upper() + plan.reason[1:])
    if plan.actions:
        where.print(_outlook(plan))
    _draw_hosts(where, plan, all_hosts=all_hosts or len(plan.before) <= 12)
    if plan.actions:
        where.print()
        rows = list(action_rows(plan))
        draw(where, Listing(rows, _telling(rows), empty="", title="Actions"))
    waves = wave_rows(plan)
    if len(waves) > 1:
        where.print()
        draw(where, Listing(waves, _WAVES, empty="", title="Waves"))
    _draw_refusals(where, plan)
    if plan.certificate:
        where.print(checked(plan.certificate))


def _outlook(plan: Plan) -> str:
    """What carrying it out means, where wave after wave waits for the slowest of the one before."""
    waves = wave_rows(plan)
    if not waves:
        return "Nothing is copied; a smaller score is better"
    copied = size(sum(move.bytes for move in plan.moves))
    span = duration(sum(wave["predicted_seconds"] for wave in waves))
    return (
        f"{counted(len(waves), 'wave')}, {copied} to copy, about {span}; a smaller score is better"
    )


def wave_rows(plan: Plan) -> list[Row]:
    """One row for each wave: its moves, how long the slowest takes, and what all of them copy."""
    waves: dict[int, list[Move]] = {}
    for move in plan.moves:
        waves.setdefault(move.wave, []).append(move)
    return [
        {
            "wave": wave,
            "moves": len(moves),
            "predicted_seconds": max(move.seconds for move in moves),
            "predicted_bytes": sum(move.bytes for move in moves),
            "predicted_downtime_ms": to_milliseconds(max(move.downtime for move in moves)),
        }
        for wave, moves in sorted(waves.items())
    ]


_WAVES = (
    Column("WAVE", lambda row: str(row["wave"]), right=True),
    Column("MOVES", lambda row: str(row["moves"]), right=True),
    Column("SLOWEST", lambda row: duration(row["predicted_seconds"]), right=True),
    Column("DATA", lambda row: size(row["predicted_bytes"]), right=True),
    Column("LONGEST PAUSE", lambda row: milliseconds(row["predicted_downtime_ms"]), right=True),
)


def action_rows(plan: Plan) -> Iterator[Row]:
    """One row for each action, in order."""
    for action in plan.actions:
        row: dict[str, Any] = {"number": action.number, "after": list(action.after)}
        if isinstance(action, Move):
            yield row | {
                "action": "move",
                "vm": action.vm,
                "from": action.source,
                "to": action.target,
                "method": str(action.method),
                "wave": action.wave,
                "set_number": action.set_number,
                **dict(_predicted(action)),
                "score_after": action.score_after,
                "reason": action.reason,
            }
        else:
            kind = "sleep" if isinstance(action, Sleep) else "wake"
            yield row | {"action": kind, "host": action.host, "reason": action.reason}


def _predicted(move: Move) -> Iterable[tuple[str, float]]:
    """What a move will take, and the least and the most of it, nine times in ten."""
    basis = move.basis
    figures = (
        ("seconds", move.seconds, basis.seconds_factor),
        ("bytes", move.bytes, basis.bytes_factor),
        ("downtime_ms", to_milliseconds(move.downtime), basis.downtime_factor),
    )
    for name, figure, factor in figures:
        whole = round if name == "bytes" else float
        yield f"predicted_{name}", figure
        yield f"predicted_least_{name}", whole(figure / factor)
        yield f"predicted_most_{name}", whole(figure * factor)


def _after(row: Row) -> str:
    shown = ",".join(map(str, row["after"][:4]))
    return shown + (f" +{len(row['after']) - 4}" if len(row["after"]) > 4 else "")


def _what(row: Row) -> str:
    if row["action"] != "move":
        return f"{row['action']} {row['host']}"
    return f"{row['vm']}  {row['from']} → {row['to']}"


ACTIONS = (
    Column("#", lambda row: str(row["number"]), right=True),
    Column("WAVE", lambda row: str(row.get("wave", "")), right=True),
    Column("AFTER", _after, right=True, spare=1),
    Column("ACTION", _what, style=lambda _: "bold"),
    Column("METHOD", lambda row: row.get("method", "")),
    Column("TIME", lambda row: predicted(row, "seconds", duration), right=True),
    Column("DATA", lambda row: predicted(row, "bytes", size), right=True, spare=3),
    Column("PAUSE", lambda row: predicted(row, "downtime_ms", milliseconds), right=True, spare=4),
    Column("SCORE", lambda row: number(row.get("score_after"), 4), right=True, spare=2),
    Column("WHY", lambda row: row["reason"], wrap=True),
)


def _telling(rows: Sequence[Row]) -> list[Column]:
    """The columns without those that say nothing here: a terminal is narrow."""
    silent = set()
    if not any(row["after"] for row in rows):
        silent.add("AFTER")
    if {row.get("method") for row in rows} <= {None, Method.PRE_COPY}:
        silent.add("METHOD")
    return [column for column in ACTIONS if column.header not in silent]


def _draw_hosts(where: "Console", plan: Plan, *, all_hosts: bool) -> None:
    rows = list(host_rows(plan))
    changed = [row for row in rows if all_hosts or row["before"] != row["after"]]
    if changed:
        where.print()
        draw(where, Listing(changed, _HOSTS, empty="", title="Hosts"))
    if len(changed) < len(rows):
        where.print(f"{len(rows) - len(changed)} hosts stay as they are (--all-hosts shows them)")


def host_rows(plan: Plan) -> Iterator[Row]:
    """One row for each host, its figures before and after side by side."""
    after = {figures.host: figures for figures in plan.after}
    verdicts = {assessment.host: assessment.verdict for assessment in plan.assessments}
    for figures in plan.before:
        yield {
            "host": figures.host,
            "verdict": verdicts.get(figures.host, ""),
            "before": figures,
            "after": after.get(figures.host, figures),
        }


def _share(row: Row, name: str) -> str:
    return _change(percent(getattr(row["before"], name)), percent(getattr(row["after"], name)))


def _change(before: str, after: str) -> str:
    return before if before == after else f"{before} → {after}"


def _power(figures: HostFigures) -> str:
    return "on" if figures.on else "off"


def _powers(row: Row) -> str:
    if row["verdict"] == Verdict.UNKNOWN:
        return NOTHING  # it may well be on
    return _change(_power(row["before"]), _power(row["after"]))


_HOSTS = (
    Column("HOST", lambda row: row["host"], style=lambda _: "bold"),
    Column("VERDICT", lambda row: row["verdict"], style=lambda row: STYLES.get(row["verdict"], "")),
    Column("POWER", _powers),
    Column("CPU EXPECTED", lambda row: _share(row, "cpu"), right=True),
    Column("MEMORY", lambda row: _share(row, "memory"), right=True),
    Column("VMS", lambda row: _change(str(row["before"].vms), str(row["after"].vms)), right=True),
)


def _draw_refusals(where: "Console", plan: Plan) -> None:
    counts = plan.refusal_counts
    if not counts and not plan.refusals:
        return
    where.print()
    if counts:
        most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        listed = ", ".join(f"{name} {count}" for name, count in most)
        where.print(f"Not taken: {sum(counts.values())} candidates ({listed})")
    rows = refusal_rows(plan.refusals[:REFUSALS_SHOWN])
    if rows:
        where.print()
        draw(where, Listing(rows, REFUSALS, empty="", title="The most telling of them"))


def refusal_rows(refusals: Iterable[Refusal]) -> list[Row]:
    """One row for each refusal."""
    return [
        {"vm": no.vm, "host": no.host, "rule": no.constraint, "why": no.detail, "do": no.remedy}
        for no in refusals
    ]


REFUSALS = (
    Column("VM", lambda row: row["vm"] or f"host {row['host']}", style=lambda _: "bold"),
    Column("NOT TO", lambda row: (row["host"] or "anywhere") if row["vm"] else NOTHING),
    Column("RULE", lambda row: row["rule"]),
    Column("WHY", lambda row: row["why"], wrap=True),
    Column("WOULD HELP", lambda row: row["do"], wrap=True),
)


def checked(certificate: Certificate) -> str:
    """What the checker found, in a sentence."""
    if certificate.violations:
        return f"Checked: broken, {'; '.join(certificate.violations)}"
    if not certificate.steps:
        return "Checked: there is nothing that could break a rule"
    slack = sorted(certificate.slack.items(), key=lambda item: item[1])
    least = ", ".join(f"{name} {share:.1%}" for name, share in slack[:6])
    room = f"; least room left: {least}" if slack else ""
    soft = "; ".join(["", *certificate.soft_breaks])
    return f"Checked: {certificate.steps} intermediate states keep every rule{room}{soft}"


def heading_of(plan: Plan, name: str, state: str = "") -> str:
    """The first line over a plan."""
    ending = f": {state}" if state else ""
    return f"{name}, {moment(plan.at)}, policy {plan.policy}, {plan.objective}{ending}"
