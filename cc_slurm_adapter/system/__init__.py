"""What the program uses of its machine: its own files, other file systems, threads, and waiting times."""
