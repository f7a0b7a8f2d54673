"""The machine on which the program is a guest: files that it made, threads, lines."""
