"""Reports Slurm jobs and node states to cc-backend."""

__version__ = "0.1.0"
