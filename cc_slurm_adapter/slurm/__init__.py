"""Everything that the program knows about Slurm: its commands, words and formats.

Only this package starts processes.
"""
