"""`-daemon`: runs the daemon in the foreground until a signal ends it."""

from __future__ import annotations

from cc_slurm_adapter import log
from cc_slurm_adapter.config.config import load_config


def run_daemon(config_path: str, *, explicit: bool, debug: int) -> None:
    """Run the daemon; `explicit` says that the path was given by the caller. Raises AdapterError."""
    log.set_up(debug)
    config, findings = load_config(config_path, explicit=explicit)
    log.log_findings(*findings)
    from cc_slurm_adapter.daemon.daemon import Daemon  # noqa: PLC0415 - slow to load: mistakes are reported before

    Daemon(config, config_path, findings).run()
