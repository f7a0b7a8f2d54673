"""What Slurm's hooks report, over a socket or as files.

The way of an event: `hook` (another process) -> `listener` and `server`, or `spool` -> `intake` -> `daemon.inbox`.
"""
