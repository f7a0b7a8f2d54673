"""A real Slurm 24.11 with 100 nodes of 128 cores and thousands of running jobs, nearly all without processes."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import NamedTuple

from tests.lab.namespaces import LabError, wait_for
from tests.lab.slurm_conf import CLUSTER, COMMON_CONF, SHIPPED_FILE, SLURMDBD_CONF
from tests.lab.slurm_lab import SlurmLab, is_free

RELEASE = "24.11"
NODES = 100
USER = "bob"
FOLDER = Path("/opt/cc/bench")
"""Where everything of ours lies inside; every user may write there."""
SLURM_CONF = (
    COMMON_CONF
    + """\
ReturnToService=2
MinJobAge=300
MaxJobCount=60000
MessageTimeout=60
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0
DefMemPerCPU=10
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort={dbd_port}
AccountingStoreFlags=job_script
NodeName=n[001-100] Port={first_node}-{last_node} NodeAddr=127.0.0.1 NodeHostname=lab \
Sockets=2 CoresPerSocket=64 ThreadsPerCore=1 RealMemory=500000
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
)
HOOKS = """\
PrologSlurmctld={folder}/hook
EpilogSlurmctld={folder}/hook
"""
HOOK = """\
#!/bin/bash
began=$EPOCHREALTIME
{adapter}
echo "$SLURM_JOB_ID $SLURM_SCRIPT_CONTEXT $began $EPOCHREALTIME" >> {folder}/hooked
exit 0
"""
NOTING = """\
#!/bin/sh
if [ $# -eq 0 ]; then
    tee {folder}/stdin.$$ | /usr/bin/{name}
    echo "{name} < stdin.$$" >> {folder}/calls
else
    echo "{name} $*" >> {folder}/calls
    exec /usr/bin/{name} "$@"
fi
"""
COMMANDS = ("squeue", "sinfo", "scontrol", "sacct", "sacctmgr")
SCRIPT = "#!/bin/sh\n# a script as sites have them\n" + "# srun ./simulation --input case.json\n" * 25 + "sleep 86400\n"
ALLOCATE = "seq {count} | xargs -P 8 -I@ salloc --no-shell --ntasks=1 --time=1-0 --job-name=bench@"
SUBMIT = "seq {count} | xargs -P 8 -I@ sbatch --parsable --ntasks=1 --time=1-0 --output=/dev/null {folder}/script"
LONG = 1800.0


class Hooked(NamedTuple):
    """A call of the hook by slurmctld: Unix times of its begin and end."""

    context: str
    began: float
    ended: float


class BigLab(SlurmLab):
    """The lab with many nodes; call `start`, `fill`, and then `call_hooks`."""

    def _write_configuration(self) -> None:
        first = free_range(NODES + 2)
        ports = {"port": first, "dbd_port": first + 1, "first_node": first + 2, "last_node": first + 1 + NODES}
        for name, text in {
            "slurm.conf": SLURM_CONF.format(cluster=CLUSTER, **ports),
            "slurmdbd.conf": SLURMDBD_CONF.format(**ports),
            "cgroup.conf": "CgroupPlugin=disabled\n",
        }.items():
            self.path(f"/etc/slurm/{name}").write_text(text, encoding="ascii")

    def _start_nodes(self) -> None:
        for number in range(1, NODES + 1):
            node = f"n{number:03}"
            self._service(f"slurmd-{node}", "root", ["slurmd", "-D", "-N", node])
        idle = ["sh", "-c", f"[ $(sinfo -h -N -t idle -o %N | sort -u | wc -l) = {NODES} ]"]
        self._wait("the nodes", "slurmctld", idle)

    def fill(self, jobs: int, scripts: int) -> list[int]:
        """So many jobs begin, some of them with a batch script; the ids of all that run."""
        self._make_folder()
        self.output("sh", "-c", SUBMIT.format(count=scripts, folder=FOLDER), user=USER, seconds=LONG)
        self.allocate(jobs - scripts)
        return wait_for("all jobs to run", lambda: self._all_running(jobs), seconds=LONG, every=1)

    def _make_folder(self) -> None:
        folder = self.path(FOLDER)
        (folder / "bin").mkdir(parents=True)
        texts = {f"bin/{name}": NOTING.format(name=name, folder=FOLDER) for name in COMMANDS}
        texts |= {"hook": HOOK.format(adapter=SHIPPED_FILE, folder=FOLDER), "script": SCRIPT, "calls": "", "hooked": ""}
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="ascii")
            (folder / name).chmod(0o666 if name in ("calls", "hooked") else 0o755)
        folder.chmod(0o777)

    def _all_running(self, jobs: int) -> list[int]:
        running = self.output("squeue", "-h", "-t", "R", "-o", "%A", seconds=60).split()
        return [int(job_id) for job_id in running] if len(running) >= jobs else []

    def allocate(self, count: int) -> list[int]:
        """Jobs that hold a core and have no process; the ids of those that were granted, when all are."""
        done = self.run("sh", "-c", ALLOCATE.format(count=count), user=USER, seconds=LONG)
        granted = re.findall(r"Granted job allocation (\d+)", done.stderr)
        if len(granted) != count:
            raise LabError(f"{len(granted)} of {count} jobs were granted:\n{done.stderr[-1000:]}")
        return [int(job_id) for job_id in granted]

    def cancel(self, job_ids: list[int]) -> None:
        """These jobs end."""
        self.output("scancel", *map(str, job_ids), seconds=120)

    def call_hooks(self) -> None:
        """From now on slurmctld calls the hook."""
        conf = self.path("/etc/slurm/slurm.conf")
        conf.write_text(conf.read_text(encoding="ascii") + HOOKS.format(folder=FOLDER), encoding="ascii")
        self.output("scontrol", "reconfigure")

    def hooked(self) -> dict[tuple[int, str], Hooked]:
        """The calls of the hook so far, by job and SLURM_SCRIPT_CONTEXT."""
        rows = [line.split() for line in self.path(FOLDER / "hooked").read_text(encoding="ascii").splitlines()]
        return {(int(job), context): Hooked(context, float(began), float(ended)) for job, context, began, ended in rows}


def free_range(count: int) -> int:
    """The first of so many neighbouring ports of 127.0.0.1 that nobody uses."""
    for first in random.sample(range(21000, 31000 - count, count), 20):
        if all(is_free(port) for port in range(first, first + count)):
            return first
    raise LabError(f"no {count} neighbouring free ports were found between 21000 and 31000")
