"""Folders that every user can get to; pytest's own are closed."""

from __future__ import annotations

from pathlib import Path


def open_to_all(folder: Path) -> Path:
    """Opens a folder, and those above it up to the first one that is open already. Returns it."""
    place = folder
    while place != place.parent and place.stat().st_mode & 0o055 != 0o055:
        place.chmod(place.stat().st_mode | 0o055)
        place = place.parent
    return folder
