"""Parsers of what Slurm prints. They are pure: none of them starts a process."""
