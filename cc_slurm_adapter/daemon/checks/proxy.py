"""Through which proxy the daemon reaches cc-backend: its unit decides that, not the shell in which -check runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

from cc_slurm_adapter.config.config import Config
from cc_slurm_adapter.config.proxy import proxy_variable
from cc_slurm_adapter.daemon.checks.unit import Unit, is_inside
from cc_slurm_adapter.model import Finding

SUBJECT = "ccRestProxy"
NEXT = "If the daemon is to use a proxy, set ccRestProxy; if it is not, set it to none"


def environment_of(unit: Unit, environ: Mapping[str, str], proc: str = "/proc") -> Mapping[str, str]:
    """Return the environment of the daemon if its unit shows it, or else that of this process, `environ`."""
    is_shown = unit.is_installed and not unit.get("EnvironmentFiles") and not is_inside(unit, environ, proc)
    return unit.environment if is_shown else environ


def find_proxy(config: Config, unit: Unit, environ: Mapping[str, str], proc: str = "/proc") -> Iterator[Finding]:
    """Yield whether cc-backend is asked here through another proxy than this shell names, or than the daemon may use.

    No value of a variable is shown, since it may have a password.
    """
    if not config.cc_rest_url or config.cc_rest_proxy or not unit.has_systemd or is_inside(unit, environ, proc):
        return
    used = environment_of(unit, environ, proc)
    here, there = proxy_variable(config.cc_rest_url, environ), proxy_variable(config.cc_rest_url, used)
    if used is not environ and environ.get(here) != used.get(there):
        how = f"through {there} of {unit.name}" if there else f"without a proxy, as {unit.name} sets none"
        only_here = f", not through {here} of this shell" if here else ""
        yield Finding(logging.INFO, SUBJECT, f"cc-backend is asked {how}{only_here}", NEXT)
    elif used is environ and here:
        text = f"cc-backend is asked through {here} of this shell; whether the daemon has that too is not known"
        yield Finding(logging.WARNING, SUBJECT, text, NEXT)
