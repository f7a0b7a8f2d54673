"""Configurations with their findings as the log has them."""

from __future__ import annotations

from collections.abc import Mapping

from cc_slurm_adapter.config import config as config_module
from cc_slurm_adapter.config.config import Config


def parse_config(settings: Mapping[str, object]) -> tuple[Config, list[str]]:
    """As the program does it."""
    config, findings = config_module.parse_config(settings)
    return config, [str(finding) for finding in findings]


def load_config(path: str, *, explicit: bool) -> tuple[Config, list[str]]:
    """As the program does it."""
    config, findings = config_module.load_config(path, explicit=explicit)
    return config, [str(finding) for finding in findings]
