"""Whether cc-backend has the cluster that is reported."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from cc_slurm_adapter.model import Finding


def find_cluster(url: str, cluster: str, known: Sequence[str]) -> Finding:
    """Find out whether a cluster is among those that cc-backend knows: it refuses the jobs of all others."""
    if cluster in known:
        return Finding(logging.INFO, "clusterName", f"cc-backend knows the cluster {cluster}")
    text = f"cc-backend at {url} does not know the cluster {cluster}, only {', '.join(known) or 'none'}"
    return Finding(logging.ERROR, "clusterName", text, "add it there, or set clusterName to the name it has there")
