"""Reports Slurm jobs and node states to cc-backend.

    slurmctld calls a hook -> hooks.hook -> a file or a socket -> hooks.intake -> daemon.main_loop
    squeue, sacct, scontrol, sinfo <- slurm.client <- jobs.watch, jobs.catch_up <- daemon.main_loop
    what Slurm says (model.Run) -> jobs.recorder, by jobs.decisions -> jobs.run_store -> outbox.outbox, on disk
    outbox.sender -> sinks.rest -> cc-backend
                  -> sinks.nats -> NATS
    cc-backend's running jobs -> daemon.running_list -> jobs.reconcile -> jobs.run_store

Data flows from left to right and never back. tests/project/test_architecture.py says which parts may import which.
"""

__version__ = "0.1.0"
