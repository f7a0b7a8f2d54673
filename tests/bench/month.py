"""The catch-up after 30 days without a daemon, at 100,000 records of accounting a day: reading, and back-pressure."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

from cc_slurm_adapter.model import RunKey
from tests.bench.backend import REAL_PACE, START, STOP
from tests.bench.big_cluster import CLUSTER
from tests.bench.history import LASTED, History, add_history
from tests.bench.practice import PracticeSite
from tests.bench.prefill import prefill_over
from tests.bench.processes import BenchError, Cpu, peak_memory, wait_until
from tests.bench.report import Budget, Other
from tests.bench.site import Alone, Amount, Bench

DAY, SPAN, RECORDS = 86400, 30 * 86400, 3_000_000
MARGIN = 3600
"""Seconds: no run ended at the edge of what is read."""
POLL = 60
FREE = Amount(40_000, 8_000)
"""So many records are brought to a destination that takes all as fast as can be; `--records` is another number."""
KNOWN, KNOWN_PIECES = Amount(300_000, 30_000), 0.2
"""So many records are read again, of which all are known; and pieces of work for one, sacct included, which are 3,000 a
second where a piece takes 1.6 ms."""
READ = 8_000
"""So many records are read while the destination is away: then nothing else takes the daemon's time."""
OBSERVED = Amount(90, 20)
"""Seconds in which it is seen how back-pressure keeps the bounds."""
FULL = 20_000
"""Messages that wait when reading rests."""
OF_BARE_READING, OF_BARE_LOOP, STOP_TIMES = 0.42, 0.8, 250
"""As much of the pace at which the same output is printed and read as JSON, which are 3,000 records a second where that
takes 0.14 ms for a record; as much of cc-backend's pace; as many times what Python takes for nothing, which are 2 s."""
PEAK_MB, FILE_MB, MOST_WAITING = 60, 64, 21_000
BARE = 500
LIMIT = 600.0
EVERY = 0.5
OVERLAP = "asked while another query is under way"
PROGRAM = Path(__file__).with_name("reading_program.py")


class Reading(NamedTuple):
    """What was read while the destination was away: records, seconds, CPU, and what the commands take alone."""

    records: int
    seconds: float
    cpu: Cpu
    commands: Alone
    parsing: float
    """Seconds of CPU for the JSON of a record."""
    work: Other

    @property
    def bare(self) -> float:
        """Records a second that are printed and read as JSON, and no more."""
        return 1 / (self.commands.wall / self.records + self.parsing)


class Observed(NamedTuple):
    """What was seen meanwhile: messages that wait, MB of the state file, whether -status tells of the work."""

    waiting: list[int]
    sizes: list[float]
    told: list[bool]


def measure_month(bench: Bench) -> None:
    """The catch-up of 30 days with 3,000,000 records: reading, a part into a free destination, and back-pressure."""
    with _site(bench, SPAN, RECORDS) as site:
        _tell_reading(bench, _read(bench, site))
    _measure_known(bench, bench.some(KNOWN))
    _measure_free(bench, bench.records or bench.some(FREE))
    _measure_back_pressure(bench)


def _site(bench: Bench, span: int, records: int, **config: Any) -> PracticeSite:
    """A daemon that comes back after so many seconds, in which as many runs ended. Its cc-backend is away."""
    settings = {"slurmQueryMaxSpan": span + DAY, "slurmPollInterval": POLL, **config}
    site = PracticeSite(bench, backend=False, away=span, **settings)
    history = History(records, int(time.time()) - span + MARGIN // 4, span - MARGIN // 2)
    add_history(site.cluster, bench.python, history)
    return site


def _read(bench: Bench, site: PracticeSite) -> Reading:
    """From the first message to the last of so many records."""
    with bench.reference() as reference:
        site.daemon.launch(debug=2)
        wait_until("the first records", lambda: site.daemon.waiting_messages() > 0, LIMIT)
        site.calls()
        first, began, before = site.daemon.waiting_messages(), time.monotonic(), site.cpu
        wait_until("the records", lambda: site.daemon.waiting_messages() >= 2 * READ, LIMIT)
        seconds, used, last = time.monotonic() - began, site.cpu.since(before), site.daemon.waiting_messages()
        site.daemon.stop()
        _refuse_overlaps(bench, site, "while it reads")
    records = (last - first) // 2
    calls = [call for call in site.calls() if call.argv[0] == "sacct"]
    parsing = float(site.run_program(PROGRAM, str(site.cluster.folder / "accounted.json")))
    return Reading(records, seconds, used, site.alone(calls), parsing, reference.work())


def _tell_reading(bench: Bench, reading: Reading) -> None:
    bare = Other("printed and read as JSON", reading.bare)
    budget = Budget(OF_BARE_READING, of_ratio=True, at_least=True)
    rate = reading.records / reading.seconds
    bench.report.add("month", "records read while nothing is sent", rate, "/s", other=bare, budget=budget)
    own = reading.cpu.own / reading.records
    bench.report.add("month", "own CPU for a record read", own, "s", other=reading.work)
    bench.report.add("month", "CPU of the commands for a record", reading.cpu.children / reading.records, "s")


def _refuse_overlaps(bench: Bench, site: PracticeSite, when: str) -> None:
    overlaps = len(re.findall(OVERLAP, site.daemon.log()))
    bench.report.add("month", f"queries of accounting at the same time, {when}", overlaps, "", budget=Budget(0))


def _measure_known(bench: Bench, records: int) -> None:
    """As after an outage of slurmdbd, or at an audit: nothing is to be sent, and only reading counts."""
    span = records * SPAN // RECORDS
    history = History(records, int(time.time()) - span, span - 2 * LASTED)
    with PracticeSite(bench, away=span + MARGIN, slurmQueryMaxSpan=SPAN) as site, bench.reference() as reference:
        add_history(site.cluster, bench.python, history)
        keys = [RunKey(CLUSTER, job_id, history.end_of(job_id) - LASTED) for job_id in history.jobs]
        prefill_over(site.daemon.state_folder / "state.sqlite", CLUSTER, keys)
        began = time.monotonic()
        site.start()
        seconds, used = time.monotonic() - began, site.cpu
        if site.backend.count(START):
            raise BenchError("runs that are known were sent again")
        alone = site.alone(call for call in site.calls() if call.argv[0] == "sacct")
    add, what = bench.report.add, f"{records:,} known records read again"
    work, budget = reference.work(), Budget(KNOWN_PIECES, of_ratio=True)
    add("month", what, records / seconds, "/s", other=Other("sacct alone", records / alone.wall))
    add("month", f"{what}: time for each", seconds / records, "s", other=work, budget=budget)
    add("month", f"{what}: own CPU of each", used.own / records, "s", other=work)


def _measure_free(bench: Bench, records: int) -> None:
    span = max(records * SPAN // RECORDS, DAY // 24) + MARGIN
    with _site(bench, span, records) as site, bench.reference() as reference:
        site.start_backend()
        site.backend.know(site.cluster.jobs, site.cluster.start)
        began = time.monotonic()
        site.daemon.launch(debug=2)
        wait_until("the end", lambda: site.backend.count(STOP) >= records, max(LIMIT, records / 50), EVERY)
        seconds, used, peak = time.monotonic() - began, site.cpu, peak_memory(site.daemon.pid)
        bare = site.bare_requests(BARE, (0.0, 0.0))
    add, what = bench.report.add, f"{records:,} records into a free destination"
    add("month", f"{what}: brought", records / seconds, "/s", other=Other("its requests alone", BARE / bare.wall))
    add("month", f"{what}: own CPU of each", used.own / records, "s", other=reference.work())
    add("month", f"{what}: peak memory", peak, "MB", budget=Budget(PEAK_MB))


def _measure_back_pressure(bench: Bench) -> None:
    with _site(bench, SPAN, RECORDS) as site, bench.reference() as reference:
        site.start_backend(REAL_PACE)
        site.backend.know(site.cluster.jobs, site.cluster.start)
        site.daemon.launch(debug=2)
        wait_until("reading to rest", lambda: site.daemon.waiting_messages() >= FULL * 0.95, LIMIT, EVERY)
        before, began = len(site.backend.look()), time.monotonic()
        seen = _observe(bench, site, bench.some(OBSERVED))
        rate = (len(site.backend.look()) - before) / (time.monotonic() - began)
        peak = peak_memory(site.daemon.pid)
        code, stopping = site.daemon.stop(30)
        _refuse_overlaps(bench, site, "with back-pressure")
        bare = 2 * BARE / site.bare_requests(BARE, REAL_PACE).wall
    _tell_bounds(bench, seen, peak)
    pace, budget = Other("a bare loop at cc-backend's pace", bare), Budget(OF_BARE_LOOP, of_ratio=True, at_least=True)
    bench.report.add("month", "messages with back-pressure", rate, "/s", other=pace, budget=budget)
    than, budget = reference.bare_python(), Budget(STOP_TIMES, of_ratio=True)
    bench.report.add("month", "SIGTERM in the middle, until its end", stopping, "s", other=than, budget=budget)
    bench.report.add("month", "exit code after it", code, "", budget=Budget(0))


def _observe(bench: Bench, site: PracticeSite, seconds: int) -> Observed:
    seen = Observed([], [], [])
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        seen.waiting.append(site.daemon.waiting_messages())
        seen.sizes.append(sum(path.stat().st_size for path in site.daemon.state_folder.glob("state.sqlite*")) / 2**20)
        seen.told.append(_status_tells(bench, site))
        time.sleep(1)
    return seen


def _status_tells(bench: Bench, site: PracticeSite) -> bool:
    """Whether -status says how far accounting was read, and that it is under way or what it waits for."""
    command = [str(bench.adapter), "-status", "-config", str(site.daemon.config_path)]
    done = subprocess.run(command, env=site.daemon.environ, capture_output=True, text=True, check=False, timeout=LIMIT)
    text = " ".join(done.stdout.split())
    return "accounting read until" in text and ("catching up" in text or "messages wait" in text)


def _tell_bounds(bench: Bench, seen: Observed, peak: float) -> None:
    add = bench.report.add
    add("month", "most messages that waited", max(seen.waiting), "", budget=Budget(MOST_WAITING))
    add("month", "fewest messages that waited", min(seen.waiting), "", budget=Budget(1, at_least=True))
    add("month", "largest state file", max(seen.sizes), "MB", budget=Budget(FILE_MB))
    add("month", "peak memory with back-pressure", peak, "MB", budget=Budget(PEAK_MB))
    share = 100 * sum(seen.told) / len(seen.told)
    add("month", "share of calls of -status that tell of it, in 100", share, "", budget=Budget(100, at_least=True))
