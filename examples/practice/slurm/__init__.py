"""A practice cluster: stand-ins for Slurm's commands that answer as a recorded release does, 24.11.5 unless told.

    cluster = PracticeCluster.create(folder)          # from .cluster
    cluster.submit(JobRequest(name="a", tasks=4))     # from .model
    Controller(cluster).start()                       # from .controller; plays slurmctld

Whoever puts `folder/bin` first in PATH finds squeue, sacct, scontrol, sinfo, sacctmgr and sdiag there. All state
lies in one SQLite file in the folder, so these commands are ordinary processes. From a terminal:
`python3 -m examples.practice.slurm --help`.

    model, hostlist   what a cluster and a job are made of   | squeue, sacct, scontrol, sinfo, sacctmgr, sdiag
    store             the SQLite file                        |     the commands; `entry` starts them
    cluster           submit, cancel, faults, the truth      | job_json, job_text, accounting_json
    controller        plays slurmctld, with `allocation`     |     how a job is printed
                      and `hooks`                            | view, call, times, config_text
    release           what each release does its own way     | older_formats   JSON of 22.05 and 23.02
"""
