"""The data of the charts of a run."""

from __future__ import annotations

import pytest
from dpp import Outcome
from dpp.report.charts import BARS, Charts, Durations, Timeline, fine_seconds

START = 1_000.0


def outcome(at: float = 0, status: str = "ok", **more: object) -> Outcome:
    return Outcome.model_validate({"id": "a", "name": "a", "url": "file:///a", "key": "a", "status": status, "at": START + at, **more})


def filled(*outcomes: Outcome) -> Timeline:
    timeline = Timeline(START)
    for one in outcomes:
        timeline.add(one)
    return timeline


@pytest.mark.parametrize("seconds", [0.001, 1.9, 2.0, 3600, 1e7])
def test_a_timeline_holds_every_file_in_a_bounded_number_of_bars(seconds):
    plot = filled(*[outcome(seconds * n / 500) for n in range(501)]).files()
    assert 1 <= len(plot.bars) <= BARS
    width = plot.bars[0].width / 0.9
    assert all(0 <= bar.left <= 1 for bar in plot.bars)
    assert max(segment.bottom + segment.height for bar in plot.bars for segment in bar.segments) == 1
    assert width * len(plot.bars) == pytest.approx(1, rel=0.05)


def test_failed_files_stand_upon_those_that_are_ok():
    plot = filled(outcome(bytes=10), outcome(), outcome(status="failed"), outcome(1, status="failed")).files()
    assert [[segment.kind for segment in bar.segments] for bar in plot.bars] == [[0, 1], [1]]
    low, high = plot.bars[0].segments
    assert (low.bottom, low.height, high.bottom) == (0, high.bottom, pytest.approx(2 / 3, abs=1e-3))
    assert plot.bars[0].text == "0 s to 15.6 ms: 128 ok/s, 64 failed/s"


def test_bytes_are_those_of_files_that_are_ok():
    plot = filled(outcome(bytes=1024), outcome(status="failed", bytes=4096)).bytes()
    assert [bar.text for bar in plot.bars] == ["0 s to 15.6 ms: 64.0 KiB/s"]
    assert plot.up[-1].text.endswith(" KiB")


def test_a_file_that_ended_before_the_run_by_another_clock_is_its_first():
    assert [bar.left for bar in filled(outcome(-5)).files().bars] == [0]


def test_quantiles_are_as_near_as_a_bucket_is_wide():
    durations = Durations()
    durations.add([n / 1000 for n in range(1, 1001)])
    assert durations.quantile(0.5) == pytest.approx(0.5, rel=0.6)
    assert durations.quantile(1) == durations.longest == 1
    assert (durations.files, durations.total) == (1000, pytest.approx(500.5))


def test_stages_share_an_axis_and_what_was_done_before_is_left_out():
    charts = Charts(START)
    charts.add(outcome(seconds={"download": 0.001, "process": 1.5}))
    charts.add(outcome(seconds={"download": 77}, cached=True))
    charts.settle()
    (first, download, fast), (second, _, slow) = charts.stages()
    assert (first, second, download.files, download.longest) == ("download", "process", 1, 0.001)
    assert fast.across == slow.across
    assert [tick.text for tick in fast.across] == ["1 ms", "10 ms", "100 ms", "1 s"]
    assert fast.bars[0].left < slow.bars[0].left


def test_a_run_that_worked_on_nothing_has_no_charts():
    charts = Charts(START)
    charts.add(outcome(cached=True))
    charts.settle()
    assert (bool(charts.timeline), charts.stages()) == (False, [])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.00034, "340 µs"),
        (0.0009999, "1 ms"),
        (1.25, "1.25 s"),
        (59.99, "60 s"),
        (75, "1 min 15 s"),
        (3600, "1 h"),
        (93784, "26 h 3 min"),
    ],
)
def test_times_have_the_unit_that_suits_them(seconds, text):
    assert fine_seconds(seconds) == text
