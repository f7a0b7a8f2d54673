"""Stand-ins for Slurm and cc-backend, for tests, the demo and a try on a laptop."""
