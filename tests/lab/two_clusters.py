"""A machine with two clusters, each with its own slurmctld, and a daemon for each as docs/install.md says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from examples.practice.cc_backend import CcBackend, CcBackendServer
from tests.project.test_documents import commands_of_section

from .controller import BY_HAND, GRES_CONF, NODE, PACKAGED, ROOT, SLURM_CONF, Controller
from .namespaces import ClosedAtTheEnd, wait_for
from .slurm_conf import CGROUP_CONF, CLUSTER, WITH_SLURMDBD
from .slurm_jobs import Submission, submit
from .slurm_lab import ACCOUNTING, free_ports

if TYPE_CHECKING:
    from pathlib import Path

    from examples.practice.cc_backend import JobRow

    from .debian import Suite

SECOND = "alpha"
"""The cluster that docs/install.md names. Its only node has the same name as that of the first one."""
CONFS = {CLUSTER: "/etc/slurm/slurm.conf", SECOND: f"/etc/slurm/{SECOND}/slurm.conf"}
SERVICE = """\
[Unit]
After=slurmdbd.service munge.service
[Service]
Environment=SLURM_CONF={conf}
ExecStart=/usr/sbin/{daemon} -D {options}
User={user}
"""
NO_POLLS = 600
"""Seconds between two polls: what is reported sooner was told by a hook."""


class Cluster(NamedTuple):
    """One of the clusters: a place where Slurm's commands are run."""

    controller: Controller
    name: str

    def output(self, *argv: str, user: str = "root", seconds: float = 30, text: str = "") -> str:
        """What a command prints; a LabError if it fails."""
        command = ["env", f"SLURM_CONF={CONFS[self.name]}", *argv]
        return self.controller.machine.output(*command, user=user, seconds=seconds, text=text)

    @property
    def unit(self) -> str:
        return f"cc-slurm-adapter@{self.name}.service"

    @property
    def config(self) -> str:
        return f"/etc/cc-slurm-adapter/{self.name}.json"

    def submit(self, job: Submission) -> int:
        return submit(self, job)

    def is_idle(self) -> bool:
        """Whether its slurmctld and its node are ready for jobs."""
        machine, conf = self.controller.machine, f"SLURM_CONF={CONFS[self.name]}"
        question = "scontrol ping | grep -q UP && sinfo -h -N -o %T | grep -qx idle"
        return machine.run("env", conf, "sh", "-c", question).returncode == 0


class TwoClusters(ClosedAtTheEnd):
    """Use it in a `with` block. Both daemons are enabled and started."""

    def __init__(self, suite: Suite, root: Path, log: Path) -> None:
        self.controller = Controller(suite, root, log)
        self.machine = self.controller.machine
        self.backend = CcBackend({CLUSTER: [NODE], SECOND: [NODE]}, describes_hardware=False)
        self.server = CcBackendServer(self.backend)
        self.server.start()
        self.first, self.second = Cluster(self.controller, CLUSTER), Cluster(self.controller, SECOND)

    def close(self) -> None:
        """Switches the machine off."""
        self.controller.close()
        self.server.close()

    def set_up(self) -> None:
        """From a machine with one cluster and the usual unit."""
        self.controller.set_up()
        self.machine.output("systemctl", "disable", "--now", "cc-slurm-adapter")
        self._add_cluster()
        configure, begin = commands_of_section("Several clusters on one host")
        self.controller.run_block(configure)
        self._configure()
        self.controller.run_block(begin)
        self.machine.output("systemctl", "enable", "--now", self.first.unit, seconds=60)

    def _add_cluster(self) -> None:
        first, machine = free_ports(), self.machine
        values = {"cluster": SECOND, "port": first, "node_port": first + 2, "node": NODE}
        conf = machine.path(CONFS[CLUSTER]).read_text(encoding="ascii")
        dbd_port = next(line.split("=")[1] for line in conf.splitlines() if line.startswith("AccountingStoragePort="))
        accounting = WITH_SLURMDBD.format(dbd_port=dbd_port).replace(
            "AccountingStorageTRES=gres/gpu,gres/gpu:h100\n", ""
        )
        text = SLURM_CONF.format(**values, accounting=accounting)
        for folder in ("/var/spool/slurmctld", "/var/spool/slurmd", "/var/log/slurm"):
            text = text.replace(f"{folder}/", f"{folder}-{SECOND}/").replace(f"={folder}\n", f"={folder}-{SECOND}\n")
        hooks = (ROOT / "examples" / "slurm.conf.hooks").read_text(encoding="utf-8").replace(BY_HAND, PACKAGED)
        folders = [f"/etc/slurm/{SECOND}", f"/var/spool/slurmd-{SECOND}"]
        machine.output("install", "-d", *folders)
        machine.output("install", "-d", "-o", "slurm", f"/var/spool/slurmctld-{SECOND}", f"/var/log/slurm-{SECOND}")
        machine.path(CONFS[SECOND]).write_text(text + hooks, encoding="ascii")
        cgroup = CGROUP_CONF.get(self.controller.suite.slurm, "CgroupPlugin=disabled\n")
        for name, content in (("cgroup.conf", cgroup), ("gres.conf", GRES_CONF)):
            machine.path(f"/etc/slurm/{SECOND}/{name}").write_text(content, encoding="ascii")
        for line in ACCOUNTING.format(cluster=SECOND).strip().splitlines():
            if "cc-slurm-adapter" not in line:
                machine.output(*line.split())
        for daemon, user, options in (("slurmctld", "slurm", ""), ("slurmd", "root", f"-N {NODE}")):
            service = SERVICE.format(conf=CONFS[SECOND], daemon=daemon, user=user, options=options)
            machine.path(f"/etc/systemd/system/{daemon}-{SECOND}.service").write_text(service, encoding="ascii")
        machine.output("systemctl", "daemon-reload")
        machine.output("systemctl", "start", f"slurmctld-{SECOND}", f"slurmd-{SECOND}", seconds=60)
        wait_for(f"the cluster {SECOND}", self.second.is_idle, seconds=60, every=0.2)

    def _configure(self) -> None:
        """Both configurations, from the one that docs/install.md has installed."""
        shown = self.machine.path(self.second.config)
        text = shown.read_text(encoding="utf-8")
        for cluster in (self.first, self.second):
            config = json.loads(text.replace(f"/{SECOND}/", f"/{cluster.name}/"))
            config.update(ccRestUrl=self.server.url, slurmConf=CONFS[cluster.name], slurmPollInterval=NO_POLLS)
            if cluster is self.first:
                self.machine.output("cp", "-p", self.second.config, cluster.config)
            self.machine.path(cluster.config).write_text(json.dumps(config), encoding="ascii")

    def rows(self) -> dict[tuple[str, int], JobRow]:
        """What cc-backend has, by cluster and job."""
        return {(str(row.start["cluster"]), row.job_id): row for row in self.backend.rows}
