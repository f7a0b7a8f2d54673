"""`-settings`: prints the keys of the configuration."""

from __future__ import annotations

from cc_slurm_adapter.config.config import settings_reference
from cc_slurm_adapter.lines import print_line


def print_settings() -> None:
    """Print each key with its default and what puts a change in force, and below it what it is for."""
    for key, default, change, text in settings_reference():
        print_line(f"{key} (default {default}; a change needs a {change})")
        print_line(f"    {text}")
