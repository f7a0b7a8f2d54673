"""What of slurm.conf does not fit: MinJobAge and PrologFlags."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from cc_slurm_adapter.daemon.checks.site import find_min_job_age, find_prolog_flags
from cc_slurm_adapter.slurm.cluster_config import ClusterConfig, Hooks, parse_cluster_config
from tests.recorded.fixture_files import FIXTURES, VERSIONS

SITE = ClusterConfig("lab", "24.11.5", "slurm", "none", has_accounting=True, records_steps=True, question_rate=None)
GAPS = ["PrologSlurmctld is not set"]


@pytest.mark.parametrize("version", VERSIONS)
def test_both_are_read_from_what_each_release_prints(version: str) -> None:
    text = (FIXTURES / f"slurm-{version}" / "cluster" / "scontrol-show-config.txt").read_text()
    site = parse_cluster_config(text)
    assert (site.min_job_age, site.prolog_flags, site.silent_controllers) == (30, (), ())
    flags = text.replace("PrologFlags             = (null)", "PrologFlags             = Alloc,Contain")
    assert parse_cluster_config(flags).prolog_flags == ("alloc", "contain")
    down = text.replace("at vm is UP", "at vm is UP\nSlurmctld(backup) at vm2 is DOWN")
    assert parse_cluster_config(down).silent_controllers == ("vm2",)


@pytest.mark.parametrize(
    ("age", "gaps", "level"),
    [
        (30, GAPS, logging.WARNING),
        (30, [], logging.INFO),
        (60, GAPS, logging.INFO),
        (300, GAPS, logging.INFO),
        (0, GAPS, logging.INFO),
        (None, GAPS, logging.INFO),
    ],
)
def test_a_min_job_age_below_the_poll_interval_matters_unless_hooks_report_all(
    age: int | None, gaps: list[str], level: int
) -> None:
    found = find_min_job_age(replace(SITE, min_job_age=age), 60, gaps)
    assert found.level == level
    assert bool(found.next_step) == (level == logging.WARNING)


@pytest.mark.parametrize(
    ("hooks", "flags", "level"),
    [
        (Hooks(prolog=("/p",)), (), logging.WARNING),
        (Hooks(prolog=("/p",)), ("x11", "alloc"), logging.INFO),
        (Hooks(prolog_slurmctld=("/s",), prolog=("/p",)), (), logging.INFO),
        (Hooks(), (), logging.INFO),
    ],
)
def test_alloc_is_needed_only_if_prolog_is_the_only_hook(hooks: Hooks, flags: tuple[str, ...], level: int) -> None:
    assert find_prolog_flags(replace(SITE, hooks=hooks, prolog_flags=flags)).level == level
