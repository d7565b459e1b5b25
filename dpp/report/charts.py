"""Charts of a run: files and bytes per second, and the duration of each stage. A template draws them."""

# The data of the charts has a fixed size, however many files a run has.

from __future__ import annotations

import math
from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple, get_args

from dpp.models import Outcome, Stage
from dpp.report.summary import human_bytes, human_seconds

BARS = 128
FINEST = 1 / 64
PER_DECADE = 5
DECADES = range(-6, 7)
TICKS = 4
_FIRST = DECADES[0] * PER_DECADE
_EDGES = [10 ** (bucket / PER_DECADE) for bucket in range(_FIRST, DECADES[-1] * PER_DECADE)]
_ROUND_SECONDS = (60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 21600, 43200, 86400)


class Tick(NamedTuple):
    """A mark on an axis: its position from 0 to 1, and its label."""

    at: float
    text: str


class Segment(NamedTuple):
    """A part of a bar: the index of what it counts, its distance from the axis and its height, both as fractions of the plot."""

    kind: int
    bottom: float
    height: float


class Bar(NamedTuple):
    """A bar: its left edge and width as fractions of the plot, its segments from the bottom up, and its tooltip."""

    left: float
    width: float
    segments: list[Segment]
    text: str


class Plot(NamedTuple):
    """Bars over two axes."""

    bars: list[Bar]
    across: list[Tick]
    up: list[Tick]


class Stretch:
    """The files that ended in a period of time."""

    __slots__ = ("bytes", "failed", "ok")

    def __init__(self) -> None:
        self.ok = self.failed = self.bytes = 0

    def take(self, other: Stretch) -> None:
        """Add the files of a part of this period."""
        self.ok += other.ok
        self.failed += other.failed
        self.bytes += other.bytes


class Timeline:
    """Files and bytes over time, in at most 128 periods of equal length.

    Args:
        start: Start of the run, in seconds since 1970-01-01 UTC.
    """

    def __init__(self, start: float) -> None:
        self._start = start
        self._width = FINEST
        self._stretches: defaultdict[int, Stretch] = defaultdict(Stretch)

    def __bool__(self) -> bool:
        return bool(self._stretches)

    def add(self, outcome: Outcome) -> None:
        """Count a file of this run."""
        # Negative if the clock of another machine is behind: such a file counts in the first period.
        seconds = outcome.at - self._start
        while seconds >= BARS * self._width:
            self._lengthen()
        stretch = self._stretches[int(seconds / self._width) if seconds > 0 else 0]
        if outcome.status == "ok":
            stretch.ok += 1
            stretch.bytes += outcome.bytes or 0
        else:
            stretch.failed += 1

    def _lengthen(self) -> None:
        shorter, self._stretches = self._stretches, defaultdict(Stretch)
        self._width *= 2
        for place, stretch in shorter.items():
            self._stretches[place // 2].take(stretch)

    def files(self) -> Plot:
        """Return the chart of files per second: ok, with failed on top."""
        return self._plot(lambda stretch: (stretch.ok, stretch.failed), _files_a_second, _format_number, 1000)

    def bytes(self) -> Plot:
        """Return the chart of bytes per second, for files that are ok."""
        return self._plot(lambda stretch: (stretch.bytes,), _bytes_a_second, human_bytes, 1024)

    def _plot(
        self,
        counts: Callable[[Stretch], Sequence[int]],
        words: Callable[[Sequence[float]], str],
        mark: Callable[[float], str],
        thousand: int,
    ) -> Plot:
        rates = {place: [count / self._width for count in counts(stretch)] for place, stretch in sorted(self._stretches.items())}
        number = max(rates, default=0) + 1
        top = max((sum(several) for several in rates.values()), default=0) or 1
        bars = [
            _bar(place, number, [rate / top for rate in several], f"{self._when(place)}: {words(several)}")
            for place, several in rates.items()
        ]
        length = number * self._width
        across = [_tick(at / length, fine_seconds(at)) for at in _marks(length, _time_step(length))]
        return Plot(bars, across, [_tick(at / top, mark(at)) for at in _marks(top, _tick_step(top, thousand))])

    def _when(self, place: int) -> str:
        return f"{fine_seconds(place * self._width)} to {fine_seconds((place + 1) * self._width)}"


class Durations:
    """A histogram of the seconds that one stage took per file, with five buckets per power of ten.

    Attributes:
        files: Number of files that completed the stage.
        total: Seconds of all files.
        longest: Seconds of the slowest file.
    """

    def __init__(self) -> None:
        self.files = 0
        self.total = 0.0
        self.longest = 0.0
        self._counts: Counter[int] = Counter()

    def add(self, seconds: Sequence[float]) -> None:
        """Count files by the seconds that each took."""
        self.files += len(seconds)
        self.total += sum(seconds)
        self.longest = max(self.longest, *seconds)
        for place, count in Counter(map(partial(bisect, _EDGES), seconds)).items():
            self._counts[place + _FIRST - 1] += count

    def ends(self) -> tuple[int, int]:
        """Return the first bucket and the one after the last."""
        return min(self._counts), max(self._counts) + 1

    def quantile(self, part: float) -> float:
        """Return the seconds within which this fraction of the files completed, with an error of at most one bucket."""
        wanted, below = part * self.files, 0
        for bucket, count in sorted(self._counts.items()):
            if below + count >= wanted:
                return min(_edge(bucket + (wanted - below) / count), self.longest)
            below += count
        return self.longest

    def plot(self, ends: tuple[int, int]) -> Plot:
        """Return the histogram over the buckets from ``ends``, which all stages share."""
        first, end = ends
        top = max(self._counts.values())
        bars = [_bar(bucket - first, end - first, [count / top], _span(bucket, count)) for bucket, count in sorted(self._counts.items())]
        decades = range(-(-first // PER_DECADE), end // PER_DECADE + 1)
        across = [_tick((decade * PER_DECADE - first) / (end - first), fine_seconds(10.0**decade)) for decade in decades]
        return Plot(bars, across, [_tick(at / top, _format_number(at)) for at in _marks(top, max(1, _tick_step(top, 1000)))])


class Charts:
    """The data of the charts of a run.

    Args:
        start: Start of the run, in seconds since 1970-01-01 UTC.
    """

    def __init__(self, start: float) -> None:
        self.timeline = Timeline(start)
        self._stages: dict[str, Durations] = {stage: Durations() for stage in get_args(Stage)}
        self._seconds: list[dict[str, float]] = []

    def add(self, outcome: Outcome) -> None:
        """Add a file, which :meth:`settle` counts; files from an earlier run are ignored."""
        if not outcome.cached:
            self.timeline.add(outcome)
            self._seconds.append(outcome.seconds)

    def settle(self) -> None:
        """Count the files that were added."""
        # Many at once, which is faster than one by one.
        for stage, durations in self._stages.items():
            if several := [seconds[stage] for seconds in self._seconds if stage in seconds]:
                durations.add(several)
        self._seconds.clear()

    def stages(self) -> list[tuple[str, Durations, Plot]]:
        """Return the stages that files completed, each with its histogram."""
        used = {stage: durations for stage, durations in self._stages.items() if durations.files}
        ends = [durations.ends() for durations in used.values()]
        shared = (min((first for first, _ in ends), default=0), max((end for _, end in ends), default=1))
        return [(stage, durations, durations.plot(shared)) for stage, durations in used.items()]


def fine_seconds(seconds: float) -> str:
    """Return a duration with a suitable unit, from microseconds to hours.

    Example:
        >>> fine_seconds(0.00034), fine_seconds(75)
        ('340 µs', '1 min 15 s')
    """
    if seconds < 60:  # noqa: PLR2004 - a minute
        for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
            # From 0.9995 on, three digits would round to 1000 of the smaller unit.
            if seconds >= size * 0.9995:
                return f"{seconds / size:.3g} {unit}"
        return "0 s"
    return human_seconds(seconds)


def _bar(place: int, number: int, heights: Iterable[float], text: str) -> Bar:
    segments, bottom = [], 0.0
    for kind, height in enumerate(heights):
        if height:
            segments.append(Segment(kind, round(bottom, 4), round(height, 4)))
        bottom += height
    return Bar(round(place / number, 5), round(0.9 / number, 5), segments, text)


def _tick(at: float, text: str) -> Tick:
    return Tick(round(at, 4), text)


def _edge(bucket: float) -> float:
    return float(10 ** (bucket / PER_DECADE))


def _span(bucket: int, count: int) -> str:
    return f"{fine_seconds(_edge(bucket))} to {fine_seconds(_edge(bucket + 1))}: {_format_number(count)} files"


def _files_a_second(rates: Sequence[float]) -> str:
    ok, failed = rates
    return f"{_format_number(ok)} ok/s" + (f", {_format_number(failed)} failed/s" if failed else "")


def _bytes_a_second(rates: Sequence[float]) -> str:
    return f"{human_bytes(rates[0])}/s"


def _format_number(count: float) -> str:
    return f"{count:,.0f}" if count >= 10 else f"{count:.3g}"  # noqa: PLR2004 - decimals matter only below 10


def _marks(end: float, step: float) -> list[float]:
    return [number * step for number in range(int(end / step * (1 + 1e-9)) + 1)]


def _tick_step(top: float, thousand: int) -> float:
    """Return a step of 1, 2 or 5 times a power of ten that makes about four marks."""
    # In multiples of the unit of the labels: bytes are labelled in powers of 1,024.
    unit = float(thousand ** max(0, int(math.log(max(top, 1), thousand))))
    rough = top / unit / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    return unit * power * next(size for size in (1, 2, 5, 10) if rough <= size * power * (1 + 1e-9))


def _time_step(length: float) -> float:
    """Return a round number of seconds, minutes, hours or days that makes about six marks."""
    rough = length / 6
    if rough <= 30:  # noqa: PLR2004 - half a minute
        return min(_tick_step(length / 6 * TICKS, 1000), 30.0)
    return next((size for size in _ROUND_SECONDS if rough <= size), 86400 * math.ceil(rough / 86400))
