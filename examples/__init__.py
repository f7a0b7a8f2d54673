"""Things to try the adapter with. Nothing in here is part of the shipped file."""
