"""Counters with labels, and the names that they have in the log."""

from __future__ import annotations

from cc_slurm_adapter.counters import Counters


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
