"""Controllers as -install finds them: one on which nothing is installed, and one on which everything is."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import build
from cc_slurm_adapter.cli.install_cc_backend import Described
from cc_slurm_adapter.cli.install_host import FileState, Host, Places, SlurmSite
from cc_slurm_adapter.cli.install_rights import Presence
from cc_slurm_adapter.config.config import Config, parse_config
from cc_slurm_adapter.config.file import DEFAULT_CONFIG_PATH
from cc_slurm_adapter.daemon.checks.unit import DEFAULT_UNIT, Unit
from cc_slurm_adapter.model import NodeState
from cc_slurm_adapter.slurm.cluster_config import ClusterConfig, Hooks

PROGRAM = Places().program
MINIMAL = json.loads((build.ROOT / "examples/config.minimal.json").read_text(encoding="utf-8"))


def config_of(**settings: object) -> Config:
    return parse_config({**MINIMAL, **settings})[0]


def node(name: str, gpus: int = 0, gpu_types: str = "", cpus: int = 64) -> NodeState:
    return NodeState(name, ("idle",), 0, 0, 0, cpus=cpus, gpus=gpus, gpu_types=gpu_types)


def cluster(**changes: Any) -> ClusterConfig:
    found = ClusterConfig("emmy", "24.11.5", "slurm", "none", True, True, None, Hooks(controllers=("ctl1",)))
    return replace(found, **changes)


def bare_host(**changes: Any) -> Host:
    """A controller on which nothing is installed."""
    found = Host(
        machine="ctl1",
        program="/tmp/cc-slurm-adapter",
        is_root=True,
        places=Places(),
        program_state=FileState.MISSING,
        config_path=DEFAULT_CONFIG_PATH,
        config_presence=Presence.MISSING,
        config_failure="",
        config=config_of(),
        token=MINIMAL["ccRestJwtFile"],
        token_presence=Presence.MISSING,
        user="cc-slurm-adapter",
        has_user=False,
        group="slurm",
        has_group=True,
        has_slurm_user=True,
        unit=Unit(DEFAULT_UNIT, properties={"LoadState": ["not-found"]}),
        unit_state=FileState.MISSING,
        tmpfiles_state=FileState.MISSING,
        events_presence=Presence.MISSING,
        slurm=SlurmSite(cluster(), nodes=(node("cn1"), node("cn2"))),
        described=Described(),
        slurm_folder="/usr/bin",
        slurm_conf="",
    )
    return replace(found, **changes)


def installed_host(**changes: Any) -> Host:
    """A controller on which everything is done."""
    found = bare_host(
        program=PROGRAM,
        program_state=FileState.SAME,
        config_presence=Presence.THERE,
        token_presence=Presence.THERE,
        has_user=True,
        unit=Unit(
            DEFAULT_UNIT,
            properties={
                "LoadState": ["loaded"],
                "ActiveState": ["active"],
                "User": ["cc-slurm-adapter"],
                "Group": ["slurm"],
            },
        ),
        unit_state=FileState.SAME,
        tmpfiles_state=FileState.SAME,
        events_presence=Presence.THERE,
        slurm=SlurmSite(
            cluster(hooks=Hooks((PROGRAM,), (PROGRAM,), controllers=("ctl1",))), nodes=(node("cn1"),), level="Operator"
        ),
    )
    return replace(found, **changes)


def of_slurm(host: Host, **changes: Any) -> Host:
    return replace(host, slurm=replace(host.slurm, **changes))
