"""`-install`: prints what is missing on this host, as a shell script with comments. It runs none of it."""

from __future__ import annotations

from cc_slurm_adapter import log
from cc_slurm_adapter.cli.check import own_program
from cc_slurm_adapter.cli.install_host import Places, find_host, places_of
from cc_slurm_adapter.cli.install_script import make_script
from cc_slurm_adapter.lines import print_line


def print_installation(config_path: str, *, explicit: bool, debug: int, places: Places | None = None) -> None:
    """Print the script. `explicit` says that the caller has named the configuration. Raises OutputError.

    `places` are those of the file that runs, unless others are named.
    """
    log.set_up(debug)
    for line in make_script(find_host(config_path, explicit=explicit, places=places or places_of(own_program()))):
        print_line(line)
