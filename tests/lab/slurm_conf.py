"""The lab's cluster: its nodes and partitions, and the files in /etc/slurm that make it so."""

from __future__ import annotations

from pathlib import Path

CLUSTER = "lab"
NODES = tuple(f"node{number:02}" for number in range(1, 8))
MAIN_NODES = NODES[:4]
"""Those of the partitions main, excl and private."""
RESERVING_NODE, FRAGILE_NODE, PREEMPTING_NODE = NODES[4:]
"""Alone in the partitions spec, fragile, and low and high: it keeps a core for the system; it may be taken
down; a job of high takes it from one of low."""

SOCKETS, CORES_PER_SOCKET, THREADS_PER_CORE, GPUS = 2, 4, 2, 4
CORES = SOCKETS * CORES_PER_SOCKET

SHIPPED_FILE = Path("/opt/cc/cc-slurm-adapter")
"""Where the built file lies inside; slurm.conf names it as both hooks."""

SLURMDBD_CONF = """\
AuthType=auth/munge
DbdHost=localhost
DbdPort={dbd_port}
SlurmUser=slurm
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
LogFile=/var/log/slurm/slurmdbd.log
PidFile=/run/slurm/slurmdbd.pid
"""
COMMON_CONF = """\
ClusterName={cluster}
SlurmctldHost=lab(127.0.0.1)
SlurmUser=slurm
SlurmctldPort={port}
AuthType=auth/munge
StateSaveLocation=/var/spool/slurmctld
SlurmdSpoolDir=/var/spool/slurmd/%n
SlurmctldPidFile=/run/slurm/slurmctld.pid
SlurmdPidFile=/run/slurm/slurmd-%n.pid
SlurmctldLogFile=/var/log/slurm/slurmctld.log
SlurmdLogFile=/var/log/slurm/slurmd-%n.log
SwitchType=switch/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
"""
"""What all clusters here have in their slurm.conf."""
SLURM_CONF = (
    COMMON_CONF
    + """\
ReturnToService=1
MinJobAge=30
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
DefMemPerCPU=100
{accounting}
PrologSlurmctld={hook}
EpilogSlurmctld={hook}
GresTypes=gpu
{nodes}
PartitionName=main Nodes=node[01-04] Default=YES MaxTime=INFINITE State=UP
PartitionName=excl Nodes=node[01-04] OverSubscribe=EXCLUSIVE State=UP
PartitionName=private Nodes=node[01-04] State=UP
PartitionName=spec Nodes=node05 State=UP
PartitionName=fragile Nodes=node06 State=UP
PartitionName=low Nodes=node07 PriorityTier=1 State=UP
PartitionName=high Nodes=node07 PriorityTier=9 State=UP
"""
)
NODE = """\
NodeName={name} Port={port} NodeAddr=127.0.0.1 NodeHostname=lab \
Sockets=2 CoresPerSocket=4 ThreadsPerCore=2 RealMemory=4000 Gres=gpu:h100:4"""
WITH_SLURMDBD = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort={dbd_port}
AccountingStorageTRES=gres/gpu,gres/gpu:h100
AccountingStoreFlags=job_script"""
WITHOUT_SLURMDBD = "AccountingStorageType=accounting_storage/none"

GRES_CONF = "NodeName=node[01-07] Name=gpu Type=h100 File=/dev/gpu[0-3]\n"
CGROUP_CONF = {
    # 22.05 knows no "disabled"; without automount this one touches nothing.
    "22.05": "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n",
}


def files(release: str, first_port: int, *, slurmdbd: bool) -> dict[str, str]:
    """The files of /etc/slurm by name, for a cluster that uses neighbouring ports: 2, and one for each node."""
    cgroup = CGROUP_CONF.get(release, "CgroupPlugin=disabled\n")
    values = {"cluster": CLUSTER, "hook": SHIPPED_FILE, "port": first_port, "dbd_port": first_port + 1}
    values["nodes"] = "\n".join(node_line(node, first_port + 2 + number) for number, node in enumerate(NODES))
    accounting = WITH_SLURMDBD.format(**values) if slurmdbd else WITHOUT_SLURMDBD
    return {
        "slurm.conf": SLURM_CONF.format(**values, accounting=accounting),
        "slurmdbd.conf": SLURMDBD_CONF.format(**values),
        "gres.conf": GRES_CONF,
        "cgroup.conf": cgroup,
    }


def node_line(node: str, port: int) -> str:
    return NODE.format(name=node, port=port) + (" CoreSpecCount=1" if node == RESERVING_NODE else "")
