"""Reads the files that sites install and that `-install` prints. The built file has them, too."""

from __future__ import annotations

import os
from typing import Protocol, cast

import cc_slurm_adapter

UNIT, TMPFILES, HOOKS = "cc-slurm-adapter.service", "cc-slurm-adapter.tmpfiles", "slurm.conf.hooks"
TEMPLATE, CLUSTER = "cc-slurm-adapter@.service", "config.cluster.json"
"""The unit and the configuration of one of several clusters on a host."""
OF_PACKAGES = {
    "/usr/local/sbin/cc-slurm-adapter": "/usr/sbin/cc-slurm-adapter",
    "# /etc/systemd/system/": "# /usr/lib/systemd/system/",
    "# /etc/sysusers.d/": "# /usr/lib/sysusers.d/",
    "# /etc/tmpfiles.d/": "# /usr/lib/tmpfiles.d/",
}
"""The places that examples name, and those of the packages: what an administrator puts into /etc counts before them."""


class _Loader(Protocol):
    """What has loaded this package, from a folder or from the built file."""

    def get_data(self, path: str) -> bytes: ...


def read_example(name: str) -> str:
    """Return a file of `examples/`, which is beside the package. Raises OSError."""
    spec = cc_slurm_adapter.__spec__
    folder = os.path.dirname(os.path.dirname(str(spec.origin)))
    return cast(_Loader, spec.loader).get_data(os.path.join(folder, "examples", name)).decode()


def packaged(text: str) -> str:
    """Return an example as the packages install it."""
    for place, of_package in OF_PACKAGES.items():
        text = text.replace(place, of_package)
    return text
