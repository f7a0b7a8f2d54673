"""The built file on a real Slurm, each release in a Debian chroot of its own."""
