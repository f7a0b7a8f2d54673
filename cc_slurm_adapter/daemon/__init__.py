"""A life of the daemon: it builds the parts, runs them, and says how they stand."""
