"""The configuration file and everything that is wrong in it. Called as the daemon's user, who must be able to read."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

from cc_slurm_adapter.config.config import CONFIGURATION, Config, examine_config, is_unknown_key
from cc_slurm_adapter.config.keys import SETTINGS
from cc_slurm_adapter.daemon.checks.unit import Unit
from cc_slurm_adapter.model import Finding

FILES = tuple(setting for setting in SETTINGS if setting.key.endswith("File"))

ONLY_DAEMON = "names a credential of the unit, which this command cannot read"
IN_UNIT = "To have that checked too, let -check run in ExecStartPre= of the unit"


def find_configuration(
    path: str, unit: Unit, environ: Mapping[str, str], *, explicit: bool
) -> tuple[Config, list[Finding]]:
    """Return the configuration, with defaults for what is wrong, and the findings about it."""
    config, found = examine_config(path, explicit=explicit)
    hidden = hidden_credentials(config, unit, environ)
    found = [each for each in found if each.subject not in hidden]
    found += [
        Finding(logging.INFO, key, f"cannot be seen: {name} is a credential, which only processes of {unit.name} have")
        for key, name in hidden.items()
    ]
    found += _hidden_files(path, config, unit)
    return config, [*found, *(_summary(path, config, found) if can_be_read(path) else ())]


def can_be_read(path: str) -> bool:
    """Return whether there is such a file for this user. Else nothing that it would say is known."""
    try:
        with open(path, "rb"):
            return True
    except OSError:
        return False


def _summary(path: str, config: Config, found: list[Finding]) -> Iterator[Finding]:
    """Yield a line about the whole file: that it is usable, or that defaults stand in for what is wrong.

    None stands in for a file that is named and cannot be used.
    """
    named = {setting.key for setting in FILES if getattr(config, setting.field)}
    errors = {each.subject for each in found if each.level >= logging.ERROR} - named
    if any(subject == CONFIGURATION or not is_unknown_key(subject) for subject in errors):
        text = f"what follows is checked with the default for what is wrong in {path}"
        yield Finding(logging.WARNING, CONFIGURATION, text, "correct that, then check again")
    else:
        yield Finding(logging.INFO, CONFIGURATION, f"the values in {path} can be used")


def hidden_credentials(config: Config, unit: Unit, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the keys whose files are credentials of the unit, with their names, if this process cannot read them."""
    if "CREDENTIALS_DIRECTORY" in environ:
        return {}
    named = {setting.key: str(getattr(config, setting.field)) for setting in FILES}
    return {key: name for key, name in named.items() if name in unit.credentials}


def _hidden_files(path: str, config: Config, unit: Unit) -> Iterator[Finding]:
    """Yield the files that the daemon's user can read here, but that the unit hides from the daemon."""
    named = {CONFIGURATION: path, "slurmConf": config.slurm_conf}
    named.update({setting.key: str(getattr(config, setting.field)) for setting in FILES})
    for key, name in named.items():
        if name and unit.hides(name):
            text = f"{name} is hidden from the daemon by ProtectHome={unit.get('ProtectHome')} in {unit.name}"
            yield Finding(logging.ERROR, key, text, "move it out of the homes, or set ProtectHome=read-only there")
