"""`python3 build.py bench`: the figures of the built file, as a table and as JSON; 1 when a budget is missed."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from examples.practice.adapter_daemon import SiteError
from tests.bench.backlog import measure_backlog
from tests.bench.events import measure_events
from tests.bench.hooks import measure_hooks
from tests.bench.lab_site import LabSites
from tests.bench.metrics_cost import measure_metrics
from tests.bench.nats_cost import measure_nats
from tests.bench.polls import measure_polls
from tests.bench.practice import PracticeSite
from tests.bench.processes import BenchError
from tests.bench.report import Report
from tests.bench.sender_rate import measure_sender
from tests.bench.site import Bench
from tests.bench.startup import measure_startup
from tests.bench.status import measure_status
from tests.bench.sync import JOBS, SCRIPTS, measure_sync
from tests.bench.texts import measure_texts
from tests.bench.week import measure_week
from tests.lab.debian import FOLDER as LAB
from tests.lab.namespaces import LabError

ROOT = Path(__file__).parents[2]
PYTHON = "CC_SLURM_ADAPTER_PYTHON"
MEASUREMENTS: Mapping[str, Callable[[Bench], None]] = {
    "startup": measure_startup,
    "hook": measure_hooks,
    "poll": measure_polls,
    "events": measure_events,
    "sync": measure_sync,
    "texts": measure_texts,
    "backlog": measure_backlog,
    "sender": measure_sender,
    "week": measure_week,
    "nats": measure_nats,
    "metrics": measure_metrics,
    "status": measure_status,
}

BIG = {"poll", "events", "sync", "texts"}
"""What --slurm measures on the real one."""


def command_line() -> argparse.ArgumentParser:
    """What `build.py bench` takes."""
    parser = argparse.ArgumentParser(
        prog="build.py bench",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Build the file and measure what it costs, on a stand-in cluster that runs anywhere.\n"
        "Each figure is held against its budget and, where there is one, against the same commands\n"
        "and requests without the daemon, in the same run. Exits with 1 when a budget is missed.",
        epilog=f"{PYTHON} chooses the interpreter, by default /usr/bin/python3.\nThe measurements:\n"
        + "".join(f"  {name:8} {(measure.__doc__ or '').splitlines()[0]}\n" for name, measure in MEASUREMENTS.items()),
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these: {', '.join(MEASUREMENTS)}")
    parser.add_argument(
        "--slurm",
        action="store_true",
        help="poll, events, sync and texts on a real Slurm with 100 nodes in a chroot; needs root, takes ten minutes",
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the jobs and repetitions, to try it")
    parser.add_argument("--against", type=Path, metavar="PATH", help="another adapter's program, to compare with")
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        default=ROOT / ".build" / "bench.json",
        help="where the figures go (default: .build/bench.json)",
    )
    parser.add_argument("--adapter", type=Path, default=ROOT / "dist" / "cc-slurm-adapter", help=argparse.SUPPRESS)
    return parser


def main(arguments: list[str]) -> int:
    """The exit code."""
    parser = command_line()
    options = parser.parse_args(arguments)
    unknown = set(options.names) - MEASUREMENTS.keys()
    if unknown:
        parser.error(f"no such measurement: {', '.join(sorted(unknown))}; there are {', '.join(MEASUREMENTS)}")
    if options.against and not (options.against.is_file() and os.access(options.against, os.X_OK)):
        parser.error(f"--against {options.against}: is no program")
    if options.json.is_dir() or not options.json.parent.is_dir():
        parser.error(f"--json {options.json}: is a folder, or lies in none")
    wanted = os.environ.get(PYTHON) or "/usr/bin/python3"
    python = shutil.which(wanted)
    if (
        not python
        or subprocess.run([python, "-c", "import sys; sys.exit(sys.version_info < (3, 9))"], check=False).returncode
    ):
        parser.error(f"{wanted} is no Python 3.9 or newer to measure with: set {PYTHON}")
    report = Report(notes=_surroundings(python, quick=options.quick))
    against = options.against.resolve() if options.against else None
    names = [name for name in MEASUREMENTS if name in options.names or not options.names]
    with ExitStack() as sites:
        bench = Bench(options.adapter.resolve(), python, report, PracticeSite, against=against, quick=options.quick)
        if options.slurm and BIG & set(names):
            bench = replace(bench, slurm=True, big_site=sites.enter_context(_start_slurm(bench)))
        for name in names:
            print(f"{name} ...", flush=True)
            try:
                MEASUREMENTS[name](bench)
            except (BenchError, LabError, SiteError) as problem:
                report.fail(name, str(problem))
    report.write(options.json)
    print(f"\n{report.table()}\n")
    for failure in report.failures:
        print(f"not measured: {failure}")
    how = "; --quick: these figures say little" if options.quick else ""
    print(f"{len(report.rows)} figures, {len(report.missed)} budgets missed; in {options.json}{how}")
    return 0 if report.is_good else 1


def _start_slurm(bench: Bench) -> LabSites:
    jobs, scripts = bench.some(JOBS), bench.some(SCRIPTS)
    print(f"starting a Slurm with {jobs:,} running jobs ...", flush=True)
    return LabSites(bench.adapter, LAB, jobs, scripts)


def _surroundings(python: str, *, quick: bool) -> dict[str, object]:
    return {
        "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "python": python,
        "quick": quick,
        "load before": os.getloadavg()[0],
    }


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing that was started is left
    try:
        sys.exit(main(sys.argv[1:]))
    except (BenchError, LabError, SiteError) as problem:
        sys.exit(f"build.py bench: {problem}")
    except KeyboardInterrupt:
        sys.exit(130)
