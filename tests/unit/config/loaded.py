"""Configurations with their findings as the log has them."""

from __future__ import annotations

from collections.abc import Mapping

from cc_slurm_adapter.config import config as config_module
from cc_slurm_adapter.config.config import Config
from cc_slurm_adapter.config.keys import BY_NAME


def parse_config(settings: Mapping[str, object]) -> tuple[Config, list[str]]:
    """As the program does it."""
    config, findings = config_module.parse_config(settings)
    return config, [str(finding) for finding in findings]


def value_of(config: Config, key: str) -> object:
    """Return the value of a key that is in effect."""
    return getattr(config, BY_NAME[key.lower()].field)


def load_config(path: str, *, explicit: bool) -> tuple[Config, list[str]]:
    """As the program does it."""
    config, findings = config_module.load_config(path, explicit=explicit)
    return config, [str(finding) for finding in findings]
