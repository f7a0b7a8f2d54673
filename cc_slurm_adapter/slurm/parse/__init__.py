"""What Slurm prints, read: pure, without a process."""
