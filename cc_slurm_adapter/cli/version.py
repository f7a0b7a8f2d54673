"""What the shipped file consists of."""

from __future__ import annotations

import json
import pkgutil

MANIFEST = "bundled.json"


def bundled() -> list[tuple[str, str, str]]:
    """Name, version and licence of each part, this program first; empty in a checkout.

    The build writes the manifest into the file, so that the file can tell its own parts.
    """
    try:
        manifest = pkgutil.get_data(__package__, MANIFEST)
    except OSError:
        return []
    return [(part["name"], part["version"], part["licence"]) for part in json.loads(manifest or b"[]")]
