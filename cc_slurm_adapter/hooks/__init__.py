"""Events in: what Slurm's hooks report, over a socket or as files."""
