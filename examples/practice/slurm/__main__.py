"""Play with a practice cluster from a terminal: python3 -m examples.practice.slurm --help."""

from __future__ import annotations

import argparse
import signal
import sqlite3
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from examples.practice.slurm.cluster import PracticeCluster
from examples.practice.slurm.command import FOLDER_VARIABLE
from examples.practice.slurm.controller import Controller
from examples.practice.slurm.model import ENDINGS, PARTITIONS, JobRequest, Settings
from examples.practice.slurm.release import RELEASES
from examples.practice.slurm.store import FILE_NAME

EXAMPLE = """\
example:
  python3 -m examples.practice.slurm up /tmp/lab        # in one terminal; prints the line to use
  export PATH=/tmp/lab/bin:$PATH PRACTICE_SLURM=/tmp/lab   # in another one
  python3 -m examples.practice.slurm submit /tmp/lab --tasks 4 --gpus 2 --duration 30
  squeue
"""


CHECK_SECONDS = 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (OSError, sqlite3.Error, ValueError) as error:
        sys.stderr.write(f"practice cluster: {error}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m examples.practice.slurm",
        description="A practice cluster: Slurm's commands without Slurm.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_up(commands.add_parser("up", help="make a cluster, or open one, and play its slurmctld until Ctrl-C"))
    _add_submit(commands.add_parser("submit", help="submit a job and print its id"))
    for name, run, text in (("cancel", _cancel, "cancel a job"), ("requeue", _requeue, "requeue a job")):
        command = commands.add_parser(name, help=text)
        command.add_argument("folder")
        command.add_argument("job_id", type=int)
        command.set_defaults(run=run)
    fault = commands.add_parser("fault", help="let slurmctld or slurmdbd play dead, or live again")
    fault.add_argument("folder")
    fault.add_argument("daemon", choices=("slurmctld", "slurmdbd"))
    fault.add_argument("state", choices=("down", "up"))
    fault.set_defaults(run=_fault)
    stop = commands.add_parser("stop", help="end `up` in its terminal, as Ctrl-C there does")
    stop.add_argument("folder")
    stop.set_defaults(run=_stop)
    truth = commands.add_parser("truth", help="print what really ran, run by run")
    truth.add_argument("folder")
    truth.set_defaults(run=_truth)
    return parser


def _add_up(parser: argparse.ArgumentParser) -> None:
    default = Settings()
    parser.add_argument("folder")
    parser.add_argument("--cluster", default=default.cluster, help="its name (%(default)s)")
    parser.add_argument("--release", default=default.release, choices=tuple(RELEASES), help="its Slurm (%(default)s)")
    parser.add_argument("--nodes", default=default.nodes, help="a host list (%(default)s)")
    parser.add_argument("--min-job-age", type=float, default=default.min_job_age, help="seconds (%(default)s)")
    parser.add_argument("--requeue-delay", type=float, default=default.requeue_delay, help="seconds (%(default)s)")
    parser.add_argument("--hook", default="", help="an executable to call as PrologSlurmctld and EpilogSlurmctld")
    parser.set_defaults(run=_up)


def _add_submit(parser: argparse.ArgumentParser) -> None:
    default = JobRequest()
    parser.add_argument("folder")
    parser.add_argument("--name", default=default.name)
    parser.add_argument("--user", default=default.user)
    parser.add_argument("--account", default=default.account)
    parser.add_argument("--partition", default=default.partition, choices=tuple(PARTITIONS))
    parser.add_argument("--nodes", type=int, default=default.nodes)
    parser.add_argument("--tasks", type=int, default=default.tasks, help="in all (one on every node)")
    parser.add_argument("--gpus", type=int, default=default.gpus_per_node, help="on every node")
    parser.add_argument("--duration", type=float, default=default.duration, help="seconds (%(default)s)")
    parser.add_argument("--ending", default=default.ending, choices=tuple(ENDINGS))
    parser.add_argument("--array", type=int, default=default.array_size, help="number of tasks")
    parser.add_argument("--array-limit", type=int, default=default.array_limit, help="tasks at the same time")
    parser.add_argument("--begin", type=float, default=default.begin_delay, help="seconds to wait at least")
    parser.add_argument("--time-limit", type=int, default=default.time_limit, help="minutes (%(default)s)")
    parser.add_argument("--exclusive", action="store_true")
    parser.add_argument("--admin-comment", default=default.admin_comment)
    parser.add_argument("--script", type=Path, help="a file with the batch script that is shown of it; it is not run")
    parser.set_defaults(run=_submit)


def _up(options: argparse.Namespace) -> int:
    stopping = threading.Event()
    for wanted in (signal.SIGINT, signal.SIGTERM):
        signal.signal(wanted, lambda *_: stopping.set())
    cluster = PracticeCluster(options.folder)
    if not (Path(cluster.folder) / FILE_NAME).exists():
        settings = Settings(
            cluster=options.cluster,
            release=options.release,
            nodes=options.nodes,
            min_job_age=options.min_job_age,
            requeue_delay=options.requeue_delay,
            hook=options.hook,
        )
        PracticeCluster.create(options.folder, settings=settings)
    cluster.ask_to_stop(asked=False)
    controller = Controller(cluster)
    controller.start()
    print(f"export PATH={cluster.bin}:$PATH {FOLDER_VARIABLE}={cluster.folder}", flush=True)
    while not stopping.wait(CHECK_SECONDS) and not cluster.is_to_stop():
        controller.check()
    controller.stop()
    return 0


def _submit(options: argparse.Namespace) -> int:
    request = JobRequest(
        name=options.name,
        user=options.user,
        account=options.account,
        partition=options.partition,
        nodes=options.nodes,
        tasks=options.tasks,
        gpus_per_node=options.gpus,
        duration=options.duration,
        ending=options.ending,
        begin_delay=options.begin,
        array_size=options.array,
        array_limit=options.array_limit,
        exclusive=options.exclusive,
        admin_comment=options.admin_comment,
        time_limit=options.time_limit,
    )
    if options.script is not None:
        request = request._replace(script=options.script.read_text(encoding="utf-8"))
    print(PracticeCluster(options.folder).submit(request))
    return 0


def _cancel(options: argparse.Namespace) -> int:
    PracticeCluster(options.folder).cancel(options.job_id)
    return 0


def _requeue(options: argparse.Namespace) -> int:
    PracticeCluster(options.folder).requeue(options.job_id)
    return 0


def _fault(options: argparse.Namespace) -> int:
    PracticeCluster(options.folder).set_down(options.daemon, down=options.state == "down")
    return 0


def _stop(options: argparse.Namespace) -> int:
    PracticeCluster(options.folder).ask_to_stop()
    return 0


def _truth(options: argparse.Namespace) -> int:
    for run in PracticeCluster(options.folder).truth():
        hosts = " ".join(f"{share.host}:cores={share.cores},gpus={share.gpus}" for share in run.hosts)
        print(f"{run.job_id} {run.user} {run.state} {run.start} {run.end} {hosts}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
