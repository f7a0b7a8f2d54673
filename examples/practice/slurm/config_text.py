"""What `scontrol show config` prints of a practice cluster: the lines that somebody may look for."""

from __future__ import annotations

from collections.abc import Mapping

from examples.practice.slurm.call import Call
from examples.practice.slurm.hostlist import expand_hosts
from examples.practice.slurm.model import MEMORY_PER_CPU, Settings
from examples.practice.slurm.times import format_time

KEY_WIDTH = 23


def config_text(call: Call) -> str:
    """The whole text, with its heading and its last line about slurmctld."""
    settings = call.settings()
    boot = format_time(int(call.store.read("boot_time", "0")), call.environ)
    lines = [f"{key:<{KEY_WIDTH}} = {value}" for key, value in _values(call, settings, boot).items()]
    heading = f"Configuration data as of {format_time(call.now, call.environ)}"
    return "\n".join([heading, *lines, "", ping_text(settings), ""])


def ping_text(settings: Settings) -> str:
    return f"Slurmctld(primary) at {settings.machine} is UP"


def _values(call: Call, settings: Settings, boot: str) -> Mapping[str, str]:
    gpus = f"gres/gpu,gres/gpu:{settings.gpu_type}"
    hooks = {"EpilogSlurmctld[0]": settings.hook, "PrologSlurmctld[0]": settings.hook} if settings.hook else {}
    values = {
        "AccountingStorageEnforce": "none",
        "AccountingStorageHost": "localhost",
        "AccountingStoragePort": "15998",
        "AccountingStorageTRES": f"cpu,mem,energy,node,billing,fs/disk,vmem,pages,{gpus}",
        "AccountingStorageType": "accounting_storage/slurmdbd",
        "AccountingStoreFlags": settings.store_flags or "(null)",
        "AuthType": "auth/munge",
        "BOOT_TIME": boot,
        "ClusterName": settings.cluster,
        "DefMemPerCPU": str(MEMORY_PER_CPU),
        "FirstJobId": "1",
        "GresTypes": "gpu",
        "JobRequeue": "1",
        "MaxArraySize": "1001",
        "MaxJobId": "67043328",
        "MaxNodeCount": str(len(expand_hosts(settings.nodes))),
        "MessageTimeout": "10 sec",
        "MinJobAge": f"{int(settings.min_job_age)} sec",
        "NEXT_JOB_ID": call.store.read("next_job_id"),
        "PrEpPlugins": "prep/script",
        "PrivateData": settings.private_data,
        "PrologEpilogTimeout": "65534",
        "PrologFlags": "(null)",
        "SchedulerType": "sched/builtin",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_CORE_MEMORY",
        "SlurmUser": f"{settings.slurm_user}({settings.slurm_uid})",
        "SlurmctldHost[0]": settings.machine,
        "SlurmctldPort": "6817",
        "SlurmdUser": "root(0)",
        "SLURM_CONF": "/etc/slurm/slurm.conf",
        "SLURM_VERSION": settings.release,
        **hooks,
    }
    return dict(sorted(values.items(), key=lambda item: item[0].lower()))
