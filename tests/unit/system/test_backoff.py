"""How long is waited after failures."""

from __future__ import annotations

from cc_slurm_adapter.system.backoff import Backoff


def test_waiting_grows_to_its_limit_and_starts_again() -> None:
    backoff = Backoff(1, 20, jitter=lambda: 1.0)
    assert [backoff.failed() for _ in range(7)] == [1, 2, 4, 8, 16, 20, 20]
    backoff.succeeded()
    assert backoff.failed() == 1
    assert Backoff(8, 20, jitter=lambda: 0.25).failed() == 2
