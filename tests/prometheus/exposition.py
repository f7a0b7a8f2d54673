"""A small exposition in Prometheus' text format, written by hand after Prometheus' own description of the format."""

from __future__ import annotations

GOOD = r"""# HELP lab_polls_total How often Slurm was asked for all jobs.
# TYPE lab_polls_total counter
lab_polls_total{result="ok"} 41
lab_polls_total{result="failed"} 1
# HELP lab_lag_seconds Age of the oldest pending message, in C:\\lab\nand elsewhere.
# TYPE lab_lag_seconds gauge
lab_lag_seconds{sink="cc-backend \"a\\b\"\nin two lines"} 2.5
# HELP lab_poll_seconds How long a poll took.
# TYPE lab_poll_seconds histogram
lab_poll_seconds_bucket{le="0.1"} 10
lab_poll_seconds_bucket{le="1.0"} 40
lab_poll_seconds_bucket{le="+Inf"} 42
lab_poll_seconds_sum 12.75
lab_poll_seconds_count 42
"""
