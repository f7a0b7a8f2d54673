"""The stand-in for sdiag: its head, with how much slurmctld still has to tell slurmdbd."""

from __future__ import annotations

import time

from examples.practice.slurm.call import Call, CommandError, Option, parse_options, print_version, require_controller

OPTIONS = (Option("all", "a"), Option("version", "V"))
LINE = "*" * 55


def main(call: Call) -> int:
    """Run sdiag and return its exit status."""
    options, rest = parse_options(call, OPTIONS)
    if rest:
        raise CommandError(f"sdiag: unrecognized option '{rest[0]}'")
    if "version" in options:
        return print_version(call)
    require_controller(call, "slurm_get_statistics")
    since = int(call.store.read("boot_time", "0"))
    call.out.write(
        f"{LINE}\n"
        f"sdiag output at {_moment(call.now)}\n"
        f"Data since      {_moment(since)}\n"
        f"{LINE}\n"
        "Server thread count:  1\n"
        "Agent queue size:     0\n"
        "Agent count:          0\n"
        "Agent thread count:   0\n"
        f"DBD Agent queue size: {_backlog(call)}\n\n"
    )
    return 0


def _backlog(call: Call) -> int:
    """While slurmdbd is down a message waits for each job: more than none is all that it is to say."""
    return len(call.store.in_memory()) + 1 if call.store.is_down("slurmdbd") else 0


def _moment(seconds: float) -> str:
    return f"{time.strftime('%a %b %d %H:%M:%S %Y', time.localtime(seconds))} ({int(seconds)})"
