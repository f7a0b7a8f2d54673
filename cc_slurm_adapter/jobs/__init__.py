"""What this program knows about runs, and what follows from what Slurm says about them."""
