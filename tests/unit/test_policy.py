"""Policies: windows by the wall clock, the order of thresholds, and the rules in force."""

from datetime import date, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from balancerd.core.policies.choices import Mode, Objective
from balancerd.core.policies.limits import Limits
from balancerd.core.policies.policy import Policy
from balancerd.core.policies.rule import ConstraintRule, matches
from balancerd.core.policies.tables import Band, Thresholds
from balancerd.core.policies.window import DAYS, Window
from balancerd.documents import DocumentError, parse


def moment(text: str, zone: str = "Europe/Berlin", fold: int = 0) -> float:
    """The time at which a wall clock shows this; `fold` 1 is the second time it does."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def window(
    start: str, end: str, days: tuple[str, ...] = DAYS, zone: str = "Europe/Berlin"
) -> Window:
    return Window.model_validate(
        {"name": "w", "days": list(days), "from": start, "to": end, "timezone": zone}
    )


def policy(text: str) -> Policy:
    return parse('summary = "test"\n' + text, Policy, "p.toml")


def problems(text: str) -> list[str]:
    with pytest.raises(DocumentError) as caught:
        policy(text)
    return list(caught.value.problems)


NIGHT = """
[[window]]
name = "night"
days = ["mon"]
from = "22:00"
to = "06:00"
timezone = "Europe/Berlin"
"""


@pytest.mark.parametrize(
    ("at", "inside"),
    [
        ("2026-03-02T21:59:59", False),
        ("2026-03-02T22:00:00", True),
        ("2026-03-03T05:59:59", True),
        ("2026-03-03T06:00:00", False),
        ("2026-03-02T03:00:00", False),  # the night that began on Sunday
        ("2026-03-03T22:00:00", False),
    ],
)
def test_a_window_past_midnight_belongs_to_the_day_it_begins_on(at: str, *, inside: bool) -> None:
    """Dies when the morning after is judged by its own weekday."""
    assert window("22:00", "06:00", ("mon",)).contains(moment(at)) is inside


def test_a_window_that_ends_when_it_begins_lasts_a_day() -> None:
    monday = window("06:00", "06:00", ("mon",))
    inside = [monday.contains(moment("2026-03-02T00:00") + hour * 3600) for hour in range(48)]
    assert inside == [6 <= hour < 30 for hour in range(48)]


def test_midnight_can_be_written_as_the_end_of_a_day() -> None:
    evening = window("18:00", "24:00", ("fri",))
    assert evening.contains(moment("2026-03-06T23:59:59"))
    assert not evening.contains(moment("2026-03-07T00:00:00"))


def test_in_spring_a_window_in_the_skipped_hour_does_not_happen() -> None:
    skipped = window("02:10", "02:50")
    start = moment("2026-03-29T00:00")
    assert not any(skipped.contains(start + minute * 60) for minute in range(5 * 60))


def test_in_autumn_a_window_in_the_repeated_hour_happens_twice() -> None:
    repeated = window("02:00", "03:00")
    start = moment("2026-10-25T00:00")
    inside = [minute for minute in range(6 * 60) if repeated.contains(start + minute * 60)]
    assert inside == list(range(2 * 60, 4 * 60))


def test_a_window_follows_the_clock_of_its_own_zone() -> None:
    tokyo = window("08:00", "09:00", zone="Asia/Tokyo")
    assert tokyo.contains(moment("2026-01-01T08:30", "Asia/Tokyo"))
    assert not tokyo.contains(moment("2026-01-01T08:30", "Europe/Berlin"))


@cache
def minutes(day: date, start: time, end: time) -> frozenset[datetime]:
    """By definition: every minute of wall clock from the start up to the end."""
    clock, found = datetime.combine(day, start), set()
    while True:
        found.add(clock)
        clock += timedelta(minutes=1)
        if clock.time() == end:
            return frozenset(found)


def contains_by_definition(opens: Window, now: float) -> bool:
    clock = datetime.fromtimestamp(now, ZoneInfo(opens.timezone)).replace(tzinfo=None)
    minute = clock.replace(second=0, microsecond=0)
    near = [clock.date() + timedelta(days=days) for days in (-2, -1, 0, 1)]
    begins = [day for day in near if DAYS[day.weekday()] in opens.days]
    return any(minute in minutes(day, opens.start, opens.end) for day in begins)


CLOCK = st.integers(0, 24 * 60 - 1).map(lambda minute: f"{minute // 60:02}:{minute % 60:02}")
ZONES = ["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Apia"]


@given(
    start=CLOCK,
    end=CLOCK,
    days=st.sets(st.sampled_from(DAYS), min_size=1).map(sorted).map(tuple),
    zone=st.sampled_from(ZONES),
    now=st.floats(1.2e9, 2.0e9),
)
@example("23:00", "01:00", ("sat",), "Europe/Berlin", 1792882800.0)  # clocks go back
@example("12:00", "12:00", ("sun",), "Europe/Berlin", 1774746000.0)  # clocks go forward
@example("10:00", "09:59", ("thu",), "Pacific/Apia", 1325239200.0)  # Friday was left out
def test_a_window_is_what_its_definition_says(
    start: str, end: str, days: tuple[str, ...], zone: str, now: float
) -> None:
    """Dies with `<=` for `<` at either end, and when yesterday is looked up in `now`'s UTC day."""
    opens = window(start, end, days, zone)
    for shift in (0, -60, 60, -43200, 43200):
        assert opens.contains(now + shift) is contains_by_definition(opens, now + shift)


@given(CLOCK, CLOCK, st.sampled_from(ZONES), st.integers(0, 6), st.integers(0, 3000))
def test_the_edges_of_a_window_are_exact(
    start: str, end: str, zone: str, weekday: int, week: int
) -> None:
    """The minute a window begins is in it, the minute it ends is not."""
    opens = window(start, end, (DAYS[weekday],), zone)
    day = date(2007, 1, 1) + timedelta(days=weekday + 7 * (week % 1500))
    for clock in (opens.start, opens.end):
        at = datetime.combine(day, clock, ZoneInfo(zone)).timestamp()
        for shift in (-1, 0, 1, 86399, 86400):
            assert opens.contains(at + shift) is contains_by_definition(opens, at + shift)


def test_the_first_window_that_contains_the_moment_counts() -> None:
    rules = policy(
        'objective = "quiet"\n' + NIGHT + 'objective = "pack"\n'
        '[[window]]\nname = "always"\nfrom = "00:00"\nto = "24:00"\n'
        'timezone = "UTC"\nmode = "act"\n'
    )
    night, day = moment("2026-03-02T23:00"), moment("2026-03-02T12:00")
    assert [rules.at(at).objective for at in (night, day)] == [Objective.PACK, Objective.QUIET]
    assert [rules.at(at).mode for at in (night, day)] == [Mode.ADVISE, Mode.ACT]
    assert rules.window_at(night) == rules.window[0]


def test_a_window_changes_single_keys_and_leaves_the_others() -> None:
    rules = policy(
        '[thresholds.cpu]\noverload = 0.9\n[limits]\ncooldown = "1h"\nper_site = 7\n'
        + NIGHT
        + 'limits = { cooldown = "10m" }\npower = { sleep_idle = true }\n'
        "[window.thresholds.cpu]\nlanding = 0.5\n"
    )
    night = rules.at(moment("2026-03-02T23:00"))
    assert night.limits == Limits(cooldown=600.0, per_site=7)
    assert night.thresholds.cpu == Band(overload=0.9, release=0.7, landing=0.5, idle=0.3)
    assert night.power.sleep_idle
    assert not rules.power.sleep_idle
    assert rules.at(moment("2026-03-02T12:00")) == rules


def test_the_rules_of_a_window_are_one_object_as_long_as_it_holds() -> None:
    rules = policy(NIGHT + "objective = 'pack'\n")
    assert rules.at(moment("2026-03-02T23:00")) is rules.at(moment("2026-03-02T23:01"))
    assert policy(NIGHT).at(moment("2026-03-02T23:00")).objective is Objective.SPREAD


def test_a_policy_without_windows_is_the_same_at_every_moment() -> None:
    rules = policy("")
    assert rules.at(0.0) is rules
    assert rules.window_at(0.0) is None


def test_a_key_left_out_of_a_band_keeps_its_default() -> None:
    cpu = policy("[thresholds.cpu]\nidle = 0.1\n").thresholds.cpu
    assert cpu == Thresholds().cpu.model_copy(update={"idle": 0.1})


@given(st.lists(st.floats(0.01, 0.99), min_size=4, max_size=4))
def test_thresholds_are_taken_in_one_order_only(values: list[float]) -> None:
    """Dies with any of the three comparisons loosened or dropped."""
    overload, release, landing, idle = values
    text = (
        f"[thresholds.cpu]\noverload = {overload}\nrelease = {release}\n"
        f"landing = {landing}\nidle = {idle}\n"
    )
    if idle < landing and landing <= release and release < overload:
        assert policy(text).thresholds.cpu.idle == idle
    else:
        (problem,) = problems(text)
        assert problem.startswith("p.toml:2: thresholds.cpu: thresholds must be in order")


@pytest.mark.parametrize("equal", [("idle", "landing"), ("release", "overload")])
def test_thresholds_that_leave_no_gap_are_refused(equal: tuple[str, str]) -> None:
    band = {"overload": 0.8, "release": 0.7, "landing": 0.6, "idle": 0.3}
    band[equal[0]] = band[equal[1]]
    assert "must be in order" in problems(f"[thresholds]\ncpu = {as_toml(band)}")[0]


def as_toml(table: dict[str, float]) -> str:
    return "{" + ", ".join(f"{key} = {value}" for key, value in table.items()) + "}"


def test_errors_in_a_window_are_told_at_their_line_in_the_window() -> None:
    text = NIGHT + (
        "  [window.limits]\n"
        "  cooldwn = '1h'\n"
        "  cooldown = 60\n"
        "  per_host = 0\n"
        "  [window.thresholds.cpu]\n"
        "  overload = 90\n"
    )
    assert problems(text) == [
        'p.toml:10: window[0].limits.cooldwn: unknown key (did you mean "cooldown"?)',
        "p.toml:11: window[0].limits.cooldown: must be a duration with its unit, for example "
        '"90s", "30m" or "1h30m"',
        "p.toml:12: window[0].limits.per_host: must be at least 1, not 0",
        "p.toml:14: window[0].thresholds.cpu.overload: must be at most 1, not 90 "
        "(did you mean 0.9?)",
    ]


def test_a_window_is_judged_together_with_the_policy_it_changes() -> None:
    text = "[thresholds.cpu]\noverload = 0.9\nrelease = 0.85\n" + NIGHT
    fits = "[window.thresholds.cpu]\nlanding = 0.85\n"
    assert policy(text + fits).at(moment("2026-03-02T23:00")).thresholds.cpu.landing == 0.85
    (problem,) = problems(text + "[window.thresholds.cpu]\nrelease = 0.95\n")
    assert problem == (
        "p.toml:12: window[0].thresholds.cpu: thresholds must be in order: "
        "idle < landing <= release < overload, not 0.3, 0.65, 0.95, 0.9"
    )


def test_what_is_wrong_outside_the_windows_does_not_hide_what_is_wrong_in_them() -> None:
    text = "mode = 1\n" + NIGHT + "thresholds.cpu.idle = 0.9\n"
    assert [line.split(": ")[1] for line in problems(text)] == [
        "mode",
        "window[0].thresholds.cpu",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (NIGHT.replace("22:00", "24:00"), 'window[0].from: "24:00" is not a time of day'),
        (NIGHT.replace("22:00", "7:5"), '"7:5" is not a time of day; write for example "22:00"'),
        (NIGHT.replace('"22:00"', "22"), '"22" is not a time of day'),
        (NIGHT.replace("Europe/Berlin", "CEST"), '"CEST" is not an IANA time zone'),
        (NIGHT.replace("Europe/Berlin", "../etc"), '"../etc" is not an IANA time zone'),
        (NIGHT.replace('["mon"]', "[]"), "window[0].days: must not be empty"),
        (NIGHT.replace('"mon"', '"Mon"'), '"sun", not "Mon" (did you mean "mon"?)'),
        (NIGHT + NIGHT, 'window: two windows have the name "night"'),
        ('[limits]\ncooldown = "2d"', "limits: cooldown must not be longer than cooldown_max"),
        (
            '[limits]\ncooldown_max = "4d"',
            'limits.cooldown_max: must be at most 3d, not "4d"',
        ),
        ('[limits]\nbandwidth = "0 MiB/s"', "limits.bandwidth: must be greater than 0 B/s"),
        ("[limits]\nbandwidth = 100", 'must be a rate with its unit, for example "100 MiB/s"'),
        ("[capacity]\nmemory_reserve = 4", "must be a size with its unit, for example"),
        (f'[capacity]\nmemory_reserve = "{400 * "9"} GiB"', "is too large"),
        (f'[limits]\nstall = "{400 * "9"}s"', "limits.stall: must be a finite number"),
        ("[capacity]\ncpu_overcommit = inf", "capacity.cpu_overcommit: must be a finite number"),
        ('[[constraint]]\nkind = "apart"', 'constraint[0]: "apart" needs vms'),
        ('[[constraint]]\nkind = "exclude"', '"exclude" needs vms, hosts or both'),
        ('[[constraint]]\nkind = "pin"\nvms = ["a"]', 'constraint[0]: "pin" needs hosts'),
        (
            '[[constraint]]\nkind = "together"\nvms = ["a"]\nhosts = ["b"]',
            'constraint[0]: "together" takes no hosts',
        ),
        ('[[constraint]]\nkind = "apart"\nvms = [""]', "constraint[0].vms[0]: must not be empty"),
    ],
)
def test_a_wrong_policy_is_told_in_the_operators_words(text: str, problem: str) -> None:
    assert any(problem in line for line in problems(text)), problems(text)


def test_names_are_meant_by_globs_that_heed_case() -> None:
    assert matches("db-1", ("web-*", "db-?"))
    assert not matches("DB-1", ("db-*",))
    assert not matches("db-1", ())


def test_numbers_without_units_pass_from_code() -> None:
    assert Limits(cooldown=60.0).cooldown == 60.0
    assert ConstraintRule(kind="apart", vms=("db-*",)).scope == "host"


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"kind": "pin", "vms": ("a",)}, '"pin" needs hosts'),
        ({"kind": "pin", "vms": ("a",), "hosts": ("h",), "scope": "rack"}, '"pin" takes no scope'),
        ({"kind": "one-of", "vms": ("a",)}, '"one-of" needs hosts'),
        ({"kind": "headroom", "hosts": ("h",)}, '"headroom" needs share'),
        ({"kind": "headroom", "hosts": ("h",), "share": 1.0}, "less than 1"),
        ({"kind": "headroom", "hosts": ("h",), "share": 0.1, "vms": ("a",)}, "takes no vms"),
        ({"kind": "together", "vms": ("a",), "at_most": 2}, '"together" takes no at_most'),
        ({"kind": "apart", "vms": ("a",), "at_most": 0}, "greater than or equal to 1"),
        ({"kind": "exclude", "vms": ("a",), "weight": 1.0}, '"exclude" takes no weight'),
        ({"kind": "avoid", "vms": ("a",), "hosts": ("h",), "weight": 0.0}, "greater than 0"),
        ({"kind": "avoid", "vms": ("a",), "hosts": ("h",), "weight": float("nan")}, "finite"),
    ],
)
def test_a_rule_takes_only_the_keys_that_mean_something_for_its_kind(
    keys: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        ConstraintRule.model_validate(keys)


def test_rules_without_a_name_are_called_by_their_place() -> None:
    rules = [{"kind": "exclude", "vms": ("a",), "name": "mine"}, {"kind": "exclude", "vms": ("b",)}]
    found = Policy.model_validate({"summary": "s", "constraint": rules})
    assert [rule.name for rule in found.constraint] == ["mine", "constraint[1]"]
