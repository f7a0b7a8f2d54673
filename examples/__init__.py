"""Programs and files to try the adapter with. Nothing here is part of the shipped file."""
