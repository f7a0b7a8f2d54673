"""What is known of runs, and what follows from what Slurm says of them."""
