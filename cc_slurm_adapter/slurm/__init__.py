"""All that is known of Slurm: its commands, its words, its formats. The only place that starts processes."""
