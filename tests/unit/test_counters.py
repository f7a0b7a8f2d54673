"""Counters with labels, and the names that they have in the log."""

from __future__ import annotations

import threading

from cc_slurm_adapter.counters import MOST_SERIES, Counters, Label, TimingSample


def test_nothing_has_happened_yet() -> None:
    assert str(Counters()) == "nothing"


def test_the_log_names_a_counter_by_its_labels() -> None:
    counters = Counters()
    counters.count("hook_events", 37)
    counters.count("never_launched", reason="requeued")
    counters.count("deliveries", sink="cc_rest", kind="start", result="delivered")
    counters.count("deliveries", sink="cc_rest", kind="start", result="delivered")
    counters.count("deliveries", sink="cc_nats", kind="stop", result="unavailable")
    assert str(counters) == "hook_events=37 nats_stop_unavailable=1 never_launched_requeued=1 start_delivered=2"


def test_the_log_has_the_sum_of_what_only_metrics_distinguish() -> None:
    counters = Counters()
    counters.count("hook_events", way="file")
    counters.count("hook_events", 2, way="socket")
    counters.count("incomplete_runs", missing="cores", why="late")
    counters.count("incomplete_runs", missing="gpus", why="not_told")
    assert str(counters) == "hook_events=3 incomplete_runs=2"
    assert [(sample.labels[0].value, sample.value) for sample in counters.samples()] == [
        ("file", 1),
        ("socket", 2),
        ("cores", 1),
        ("gpus", 1),
    ]


def test_durations_are_summed_and_not_in_the_log() -> None:
    counters = Counters()
    for seconds in (0.5, 1.25):
        counters.observe("steps", seconds, step="poll", result="succeeded")
    counters.observe("steps", 8.0, step="poll", result="failed")
    failed, succeeded = (Label("result", "failed"), Label("result", "succeeded"))
    assert counters.timings() == (
        TimingSample("steps", (Label("step", "poll"), failed), 1, 8.0),
        TimingSample("steps", (Label("step", "poll"), succeeded), 2, 1.75),
    )
    assert str(counters) == "nothing"


def test_a_duration_is_in_the_first_bucket_that_it_does_not_exceed() -> None:
    counters = Counters()
    for seconds in (0.0, 0.05, 0.0625, 0.25, 300.0, 300.5, 1e9):
        counters.observe_in_buckets("latency", seconds, kind="start")
    (sample,) = counters.histograms()
    assert sample.labels == (Label("kind", "start"),)
    #                         0.05 0.1 0.2 0.3 0.5  1  2  5 10 30 60 300 more
    assert sample.buckets == (2, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 2)
    assert sample.seconds == 0.05 + 0.0625 + 0.25 + 300.0 + 300.5 + 1e9
    assert str(counters) == "nothing"


def test_a_sample_does_not_change_later() -> None:
    counters = Counters()
    counters.observe_in_buckets("latency", 1.0)
    before = counters.histograms()
    counters.observe_in_buckets("latency", 1.0)
    assert sum(before[0].buckets) == 1
    assert sum(counters.histograms()[0].buckets) == 2


def test_the_number_of_series_is_bounded() -> None:
    counters = Counters()
    for number in range(MOST_SERIES + 10):
        counters.count("a", of=str(number))
        counters.observe("b", 1.0, of=str(number))
        counters.observe_in_buckets("c", 1.0, of=str(number))
    counters.count("a", of="0")
    assert len(counters.samples()) == len(counters.timings()) == len(counters.histograms()) == MOST_SERIES
    assert counters.counts()["a_0"] == 2


def test_threads_lose_nothing() -> None:
    counters, each, threads = Counters(), 2000, 4

    def count() -> None:
        for _ in range(each):
            counters.count("a")
            counters.observe("b", 0.5)
            counters.observe_in_buckets("c", 0.5)

    started = [threading.Thread(target=count) for _ in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join(60)
    assert counters.counts() == {"a": each * threads}
    assert counters.timings() == (TimingSample("b", (), each * threads, 0.5 * each * threads),)
    assert sum(counters.histograms()[0].buckets) == each * threads
