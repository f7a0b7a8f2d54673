"""`-version`: prints the version, and what the shipped file consists of."""

from __future__ import annotations

import json
import pkgutil
import platform

from cc_slurm_adapter import __version__
from cc_slurm_adapter.lines import print_line

MANIFEST = "bundled.json"


def print_version() -> None:
    """Print the version, then a line for each part of the file."""
    print_line(f"cc-slurm-adapter {__version__} (Python {platform.python_version()})")
    for name, version, licence in bundled():
        print_line(f"  {name} {version} ({licence})")


def bundled() -> list[tuple[str, str, str]]:
    """Return name, version and licence of each part, this program first; empty in a checkout.

    The build writes the manifest into the file, so that the file knows its own parts.
    """
    try:
        manifest = pkgutil.get_data("cc_slurm_adapter", MANIFEST)
    except OSError:
        return []
    return [(part["name"], part["version"], part["licence"]) for part in json.loads(manifest or b"[]")]
