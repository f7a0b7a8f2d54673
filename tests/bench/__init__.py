"""`build.py bench`: what the built file costs, beside a bare loop of the same commands and requests."""
