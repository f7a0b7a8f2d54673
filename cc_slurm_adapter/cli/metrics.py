"""`-metrics`: prints the metrics of the running daemon, for the textfile collector of Prometheus' node exporter."""

from __future__ import annotations

from cc_slurm_adapter.cli.control_client import get, parse_answer
from cc_slurm_adapter.config.paths import read_paths
from cc_slurm_adapter.errors import StateError
from cc_slurm_adapter.lines import print_line


def print_metrics(config_path: str, *, explicit: bool) -> None:
    """Print the metrics. Nothing is printed if there are none. Raises ConfigError, and StateError without a daemon."""
    paths = read_paths(config_path, explicit=explicit)
    for line in read_metrics(paths.control_sock).splitlines():
        print_line(line)


def read_metrics(socket_path: str) -> str:
    """Ask the daemon for its metrics. Raises StateError if it does not run or does not answer."""
    status, body = get("/metrics", socket_path)
    if status != 200:
        parse_answer(status, body)
    text = body.decode("utf-8", errors="replace")
    if not text.startswith("# "):
        raise StateError("what listens on the control socket answers without metrics: check controlSockPath")
    return text
