"""What migrations of the past teach about those to come.

A model's prediction is wrong in ways that repeat: hosts send slower than their links allow, a VM
writes more than the last sample of it said. So each figure's error, the logarithm of actual over
model, is split up: what all migrations by one method have in common, what is particular to a link
beyond that, and what to a VM beyond both. Each part is a mean that is shrunk towards nothing as
long as little is known of it (with n cases it counts n / (n + SHRINK)), and that forgets slowly.

How far off the corrected prediction still is tells how wide an interval must be. Its width follows
the mean size of the errors, times a calibration that grows with each miss and shrinks with each
hit, so that NOMINAL of the intervals hold in the long run whatever the errors look like (adaptive
conformal inference: Gibbs and Candès, 2021). VMs that have moved before have a width of their own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import exp, log
from types import MappingProxyType

NOMINAL = 0.9  # share of intervals that shall hold
SHRINK = 1.0  # cases that "nothing particular" counts as
REMEMBERED = {"method": 50.0, "link": 20.0, "vm": 5.0}  # cases, of which older ones fade
CLIPPED = 1.5  # an error counts as no more than this, in logarithms: a factor of 4.5
# Of an interval with nothing known. How long the last pages take is hardest to foresee.
FIRST_WIDTH = {"seconds": log(2.0), "bytes": log(2.0), "downtime": log(4.0)}
FADING = 0.05  # weight of the newest error in their mean size
EAGER = 0.1  # how fast the calibration follows hits and misses
NARROWEST, WIDEST = log(1.02), log(10.0)
WIDE_AS = 2.06  # of normal errors nine in ten are below so many times their mean size

Figures = Mapping[str, tuple[float, float]]  # by name: what the model said, and what came of it


@dataclass(frozen=True, slots=True)
class Basis:
    """What the prediction of a move rests on: what the model alone said, where the way is
    narrowest, and by which factor either way the actual figure may differ, nine times in ten."""

    model_seconds: float = 0.0
    model_bytes: float = 0.0
    model_downtime: float = 0.0
    seconds_factor: float = 1.0
    bytes_factor: float = 1.0
    downtime_factor: float = 1.0
    link: str = ""


MODEL_ONLY = Basis()


@dataclass(frozen=True, slots=True)
class Lesson:
    """One migration that was done. `figures` by name: "seconds", "bytes", "downtime"."""

    vm: str
    method: str
    link: str
    figures: Figures


@dataclass(frozen=True, slots=True)
class Part:
    """The mean of one part of the error, of so many cases."""

    cases: float = 0.0
    mean: float = 0.0

    @property
    def shrunk(self) -> float:
        """The part as far as it may be believed."""
        return self.mean * self.cases / (self.cases + SHRINK)

    def after(self, error: float, remembered: float) -> "Part":
        """The part with one more case."""
        cases = min(self.cases + 1.0, remembered)
        return Part(cases, self.mean + (error - self.mean) / cases)


@dataclass(frozen=True, slots=True)
class Width:
    """How wide intervals must be: the mean size of errors, and the calibration."""

    size: float
    calibration: float = 1.0

    @property
    def width(self) -> float:
        """Half the interval, in logarithms."""
        return min(max(WIDE_AS * self.size * self.calibration, NARROWEST), WIDEST)

    def after(self, error: float) -> "Width":
        """The width after an error of a prediction whose interval this was."""
        missed = abs(error) > self.width
        calibration = self.calibration * exp(EAGER * (missed - (1.0 - NOMINAL)))
        return Width(
            self.size + FADING * (abs(error) - self.size), min(max(calibration, 0.3), 10.0)
        )


@dataclass(frozen=True, slots=True)
class Correction:
    """What to make of a model's figure: multiply by `ratio`; the truth is within `factor`."""

    ratio: float
    factor: float


_UNTOLD = Part()
_UNSEEN = {figure: Width(width / WIDE_AS) for figure, width in FIRST_WIDTH.items()}
_NOTHING_KNOWN = {figure: Correction(1.0, exp(width)) for figure, width in FIRST_WIDTH.items()}


@dataclass(frozen=True, slots=True)
class Lessons:
    """All that was learned, a value. Keys: (figure, kind, name) and (figure, VM known)."""

    parts: MappingProxyType[tuple[str, str, str], Part] = field(
        default_factory=lambda: MappingProxyType({})
    )
    widths: Mapping[tuple[str, bool], Width] = field(default_factory=lambda: MappingProxyType({}))

    def correction(self, figure: str, method: str, link: str, vm: str) -> Correction:
        """What the past says of a model's figure for this VM over this link."""
        if not self.parts:
            return _NOTHING_KNOWN[figure]
        known = (figure, "vm", vm) in self.parts
        width = self.widths.get((figure, known), _UNSEEN[figure]).width
        return Correction(exp(_offset(self.parts, figure, method, link, vm)), exp(width))

    def after(self, *lessons: Lesson) -> "Lessons":
        """With more migrations taken in, oldest first. What is known is copied but once for all."""
        parts, widths = self.parts.copy(), dict(self.widths)  # `dict` would look each part up
        for lesson in lessons:
            for figure, (model, actual) in lesson.figures.items():
                _take_in(parts, widths, lesson, figure, model, actual)
        return Lessons(MappingProxyType(parts), MappingProxyType(widths))


def _take_in(
    parts: dict[tuple[str, str, str], Part],
    widths: dict[tuple[str, bool], Width],
    lesson: Lesson,
    figure: str,
    model: float,
    actual: float,
) -> None:
    """One figure of a migration. One that is not positive teaches nothing."""
    if not (0.0 < model < 1e18 and 0.0 < actual < 1e18):
        return
    error = log(actual / model)
    known = (figure, "vm", lesson.vm) in parts
    expected = _offset(parts, figure, lesson.method, lesson.link, lesson.vm)
    width = widths.get((figure, known), _UNSEEN[figure])
    widths[figure, known] = width.after(_clipped(error - expected))
    rest = _clipped(error)
    for kind, name in (("method", lesson.method), ("link", lesson.link), ("vm", lesson.vm)):
        if name:
            part = parts.get((figure, kind, name), _UNTOLD)
            part = parts[figure, kind, name] = part.after(rest, REMEMBERED[kind])
            rest -= part.shrunk


def _offset(
    parts: Mapping[tuple[str, str, str], Part], figure: str, method: str, link: str, vm: str
) -> float:
    names = (("method", method), ("link", link), ("vm", vm))
    return sum(parts.get((figure, *name), _UNTOLD).shrunk for name in names)


UNTAUGHT = Lessons()


def _clipped(error: float) -> float:
    return min(max(error, -CLIPPED), CLIPPED)
