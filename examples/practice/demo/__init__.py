"""Shows the adapter at work: python3 build.py demo, or python3 -m examples.practice.demo --help."""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from examples.practice.adapter_daemon import SiteError
from examples.practice.cc_backend import JobRow
from examples.practice.demo.jobs import plan_jobs
from examples.practice.demo.practice import POLL_SECONDS, SETTINGS, TITLE, PracticeDemo
from examples.practice.demo.slurm import SlurmDemo, site_on_slurm
from examples.practice.demo.table import UP, Display, Picture, make_display
from examples.practice.site import Site

TICK = 0.25
INTERRUPTED = 130
SHOWN_DIFFERENCES = 50

DESCRIPTION = """\
Runs the built file as a daemon and as the hook that Slurm calls, and shows what
becomes of each job. It needs no Slurm and no cc-backend: a practice cluster and
a stand-in are part of it. cc-backend is taken away in the middle. At the end
all that was reported is compared with what really ran: the exit code is 0 only
if nothing is missing, double or wrong.
"""
EPILOG = """\
The columns START SENT and STOP SENT show how long after slurmctld called its
hook cc-backend had accepted the message (with --slurm: when it had). On a
terminal the table is redrawn in place; otherwise a line is printed for each
thing that happens. Ctrl-C ends the demo and all that it started.

--slurm watches the Slurm that is installed here and sends to the stand-in, to
see what the adapter would report before installing it. It changes nothing and
needs no hook. Ctrl-C ends the watching; then all is compared as well.
"""


class Demo(Protocol):
    """What the loop plays."""

    def turn(self) -> None: ...
    def finished(self) -> bool: ...
    def picture(self) -> Picture: ...
    def summary(self) -> list[str]: ...
    def differences(self) -> list[str]: ...


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; the exit code."""
    options = parse(arguments)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # also where a shell started it in the background
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    display = make_display(sys.stdout)
    try:
        return on_slurm(options, display) if options.slurm else on_practice_cluster(options, display)
    except SiteError as error:
        display.close()
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        display.close()
        print("demo: ended before its time, all that it started is gone", file=sys.stderr)
        return INTERRUPTED


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; wrong ones end the program with a line that says why."""
    parser = argparse.ArgumentParser(
        prog="build.py demo",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--slurm", action="store_true", help="watch the Slurm that is installed here, not a practice cluster")
    add("--seconds", type=_number(5, 3600), metavar="S", help="how long (default: 40; with --slurm 120)")
    add(
        "--jobs",
        type=_number(1, 1000),
        default=40,
        metavar="N",
        help="how many jobs of the practice cluster (%(default)s)",
    )
    add("--seed", type=int, default=1, metavar="N", help="another number gives other jobs (%(default)s)")
    add("--rows", type=Path, metavar="FILE", help="write what was reported there, a line of JSON for each job")
    add("--adapter", type=Path, default=Path("dist/cc-slurm-adapter"), metavar="FILE", help="(default: %(default)s)")
    options = parser.parse_args(arguments)
    options.adapter = options.adapter.absolute()
    options.seconds = options.seconds or (120 if options.slurm else 40)
    if not options.adapter.is_file():
        parser.error(f"{options.adapter} is missing: run python3 build.py build")
    if options.rows and not options.rows.absolute().parent.is_dir():
        parser.error(f"--rows: the folder of {options.rows} is missing")
    return options


def _number(least: int, most: int) -> Callable[[str], int]:
    """A parser of whole numbers between two bounds."""

    def parse_number(text: str) -> int:
        if not re.fullmatch(r"\d{1,9}", text) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least} to {most} and not {text!r}")
        return int(text)

    return parse_number


def on_practice_cluster(options: argparse.Namespace, display: Display) -> int:
    """The demo with the practice cluster; the exit code."""
    display.show(beginning(TITLE, "the practice cluster, cc-backend and the daemon are started"))
    with Site(options.adapter, cluster=SETTINGS, slurmPollInterval=POLL_SECONDS) as site:
        site.daemon.start()
        demo = PracticeDemo(site, plan_jobs(options.jobs, options.seconds, options.seed), options.seconds)
        play(demo, display)
        display.close()
        return conclude(demo, site.backend.rows, options.rows)


def on_slurm(options: argparse.Namespace, display: Display) -> int:
    """The demo with an installed Slurm, which Ctrl-C ends before its time; the exit code."""
    display.show(beginning("cc-slurm-adapter demo", "Slurm is asked for its nodes, the daemon is started"))
    with site_on_slurm(options.adapter) as site:
        site.daemon.start(seconds=60)
        demo = SlurmDemo(site, options.seconds)
        with suppress(KeyboardInterrupt):
            play(demo, display)
        display.close()
        print("\nwhat was reported is compared with squeue and sacct ...", flush=True)
        return conclude(demo, site.backend.rows, options.rows)


def beginning(title: str, activity: str) -> Picture:
    """What is shown before there is anything."""
    return Picture(title, 0, f"{activity} ...", "", 0, 0, 0, 0, 0, 0, UP, [])


def play(demo: Demo, display: Display) -> None:
    """Until the demo has finished."""
    while True:
        demo.turn()
        display.show(demo.picture())
        if demo.finished():
            return
        time.sleep(TICK)


def conclude(demo: Demo, rows: Sequence[JobRow], rows_file: Path | None) -> int:
    """Print what came of it; the exit code."""
    found = demo.differences()
    print()
    for line in demo.summary():
        print(line)
    if rows_file:
        write_rows(rows, rows_file)
        print(f"what was reported lies in {rows_file}")
    for line in found[:SHOWN_DIFFERENCES]:
        print(f"WRONG: {line}")
    if found:
        print(f"{len(found)} differences between what was reported and what really ran")
        return 1
    print("nothing is missing, double or wrong: what was reported is what really ran")
    return 0


def write_rows(rows: Sequence[JobRow], path: Path) -> None:
    """One JSON object for each row: the start request, and how it ended."""
    lines = [{"start": row.start, "jobState": row.state, "stopTime": row.stop_time} for row in rows]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
