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
from tests.bench.before import Earlier, changes, differences, read_earlier, table
from tests.bench.day import measure_day
from tests.bench.events import measure_events
from tests.bench.hooks import measure_hooks
from tests.bench.lab_site import LabSites
from tests.bench.metrics_cost import measure_metrics
from tests.bench.month import measure_month
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
    "day": measure_day,
    "sender": measure_sender,
    "week": measure_week,
    "month": measure_month,
    "nats": measure_nats,
    "metrics": measure_metrics,
    "status": measure_status,
}

LEFT_OUT = {"sync", "texts", "backlog", "week", "month", "nats", "metrics"}
"""What takes too long for --quick, unless it is named."""
BIG = {"poll", "events", "sync", "texts"}
"""What --slurm measures on the real one."""


def command_line() -> argparse.ArgumentParser:
    """What `build.py bench` takes."""
    parser = argparse.ArgumentParser(
        prog="build.py bench",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Build the file and measure what it costs, on a stand-in cluster that runs anywhere.\n"
        "Each figure is held against its budget: for times a ratio to the same commands and requests without\n"
        "the daemon, or to a fixed piece of Python work, in the same run. Exits with 1 when a budget is missed.",
        epilog=f"{PYTHON} chooses the interpreter, by default /usr/bin/python3.\nThe measurements:\n"
        + "".join(f"  {name:8} {(measure.__doc__ or '').splitlines()[0]}\n" for name, measure in MEASUREMENTS.items()),
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these: {', '.join(MEASUREMENTS)}")
    parser.add_argument(
        "--slurm",
        action="store_true",
        help="poll, events, sync and texts on a real Slurm with 100 nodes in a chroot; needs root, takes ten minutes",
    )
    parser.add_argument("--quick", action="store_true", help=f"in under 90 s, without {', '.join(sorted(LEFT_OUT))}")
    parser.add_argument(
        "--before",
        type=Path,
        metavar="FILE",
        help="figures of an earlier run: what got slower or larger; 1 if anything",
    )
    parser.add_argument(
        "--records",
        type=int,
        default=0,
        metavar="N",
        help="how many records `month` brings to a free destination; 3000000 is the whole month and takes over an hour",
    )
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
    report = Report(notes=_surroundings(python, quick=options.quick, slurm=options.slurm))
    earlier = read_earlier(options.before, report.notes) if options.before else None
    against = options.against.resolve() if options.against else None
    left_out = LEFT_OUT if options.quick else set()
    names = [name for name in MEASUREMENTS if name in options.names or not (options.names or name in left_out)]
    with ExitStack() as sites:
        bench = Bench(options.adapter.resolve(), python, report, PracticeSite, against=against, quick=options.quick)
        bench = replace(bench, records=options.records)
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
    if left_out and not options.names:
        print(f"--quick leaves out: {', '.join(sorted(left_out))}, and in the others what takes long")
    print(f"{len(report.rows)} figures, {len(report.missed)} budgets missed; in {options.json}")
    worse = _tell_changes(earlier, report) if earlier else 0
    return 0 if report.is_good and not worse else 1


def _tell_changes(earlier: Earlier, report: Report) -> int:
    """How many figures got worse by more than the noise."""
    found = changes(earlier, report)
    print(f"\nagainst {earlier.path}:")
    print("\n".join([*differences(earlier, report), table(found)]))
    worse = [change for change in found if change.is_worse]
    for change in worse:
        print(f"{change.verdict}: {change.row.measurement} {change.row.what}: {change.factor:.2f} times what it was")
    judged = sum(bool(change.verdict) for change in found)
    print(f"{len(found)} figures compared, {judged} of them judged, {len(worse)} worse by more than the noise")
    return len(worse)


def _start_slurm(bench: Bench) -> LabSites:
    jobs, scripts = bench.some(JOBS), bench.some(SCRIPTS)
    print(f"starting a Slurm with {jobs:,} running jobs ...", flush=True)
    return LabSites(bench.adapter, LAB, jobs, scripts)


def _surroundings(python: str, *, quick: bool, slurm: bool) -> dict[str, object]:
    version = [python, "-c", "import platform; print(platform.python_version())"]
    return {
        "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "python": python,
        "python version": subprocess.run(version, capture_output=True, text=True, check=True).stdout.strip(),
        "quick": quick,
        "slurm": slurm,
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
