"""The parts of the benchmark that can be wrong without anybody seeing it: budgets, the stand-ins, what is counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cc_slurm_adapter.model import EndState, Phase
from cc_slurm_adapter.outbox.outbox import Outbox
from cc_slurm_adapter.slurm.client import SlurmClient
from cc_slurm_adapter.slurm.cluster_config import read_cluster_config
from cc_slurm_adapter.slurm.commands import Commands
from tests.bench.__main__ import main
from tests.bench.backend import NODES, START, STOP, BenchBackend
from tests.bench.before import Earlier, changes, differences, read_earlier, table
from tests.bench.big_cluster import CLUSTER, FIRST_JOB, BigCluster
from tests.bench.prefill import prefill
from tests.bench.processes import (
    BenchError,
    cpu_of,
    forget_peak,
    in_turn,
    memory,
    peak_memory,
    run_times_of,
    wait_until,
)
from tests.bench.reference import Reference
from tests.bench.report import Budget, Other, Report, Row, in_words, noise_of, percentile
from tests.bench.site import Call, read_calls, write_calls

REPLAY = Path(__file__).parents[1] / "bench" / "replay.py"
NODE_COUNT, JOBS, SCRIPTS = 3, 20, 2


@pytest.fixture
def cluster(tmp_path: Path) -> BigCluster:
    return BigCluster(tmp_path / "slurm", sys.executable, nodes=NODE_COUNT, jobs=JOBS, scripts=SCRIPTS)


@pytest.fixture
def client(cluster: BigCluster, tmp_path: Path) -> Iterator[SlurmClient]:
    commands = Commands(cluster.environ)
    yield SlurmClient(commands, CLUSTER, str(tmp_path), 100_000)
    commands.close()


@pytest.fixture
def backend() -> Iterator[BenchBackend]:
    with BenchBackend(sys.executable, CLUSTER) as running:
        yield running


@pytest.mark.parametrize(
    ("row", "met"),
    [
        (Row("m", "w", 2.0, "s"), True),
        (Row("m", "w", 2.0, "MB", budget=Budget(2.0)), True),
        (Row("m", "w", 2.1, "MB", budget=Budget(2.0)), False),
        (Row("m", "w", 2.0, "", budget=Budget(2.0, at_least=True)), True),
        (Row("m", "w", 1.9, "", budget=Budget(2.0, at_least=True)), False),
        (Row("m", "w", 3.0, "s", Other("o", 2.0), Budget(1.5, of_ratio=True)), True),
        (Row("m", "w", 3.1, "s", Other("o", 2.0), Budget(1.5, of_ratio=True)), False),
        (Row("m", "w", 3.1, "s", Other("o", 0.0), Budget(1.5, of_ratio=True)), False),
        (Row("m", "w", 3.1, "s", None, Budget(1.5, of_ratio=True)), False),
    ],
)
def test_a_budget_is_kept_or_missed(row: Row, met: bool) -> None:
    assert row.is_met is met


@pytest.mark.parametrize("unit", ["s", "%", "/s"])
def test_no_budget_is_a_mere_time(unit: str) -> None:
    with pytest.raises(ValueError, match="is a ratio"):
        Report().add("m", "w", 1.0, unit, budget=Budget(2.0))
    Report().add("m", "w", 1.0, unit, other=Other("o", 1.0), budget=Budget(2.0, of_ratio=True))


def test_a_report_is_a_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(notes={"python": "3"})
    report.add("poll", "time", 0.3, "s", other=Other("alone", 0.2), budget=Budget(1.2, of_ratio=True))
    report.add("poll", "memory", 30.0, "MB")
    head, first, second = report.table().splitlines()
    assert first.split() == ["poll", "time", "0.30", "s", "0.20", "s", "(alone)", "1.50", "<=", "1.2", "x", "MISSED"]
    assert second.split() == ["poll", "memory", "30", "MB"]
    assert head.index("budget") == first.index("<=")
    report.write(tmp_path / "new" / "bench.json")
    written = json.loads((tmp_path / "new" / "bench.json").read_text())
    assert written["missed"] == 1
    assert written["python"] == "3"
    assert [row["met"] for row in written["rows"]] == [False, True]
    assert capsys.readouterr().out.count("\n") == 2


def test_what_could_not_be_measured_is_a_failure(tmp_path: Path) -> None:
    report = Report()
    report.add("poll", "memory", 0.2, "MB", budget=Budget(0.25))
    assert report.is_good
    report.fail("sync", "waited in vain")
    assert not report.is_good
    report.write(tmp_path / "bench.json")
    assert json.loads((tmp_path / "bench.json").read_text())["failures"] == ["sync: waited in vain"]


def test_figures_are_printed_in_their_units() -> None:
    assert in_words(0.000005, "s") == "5.00 us"
    assert in_words(0.0021, "s") == "2.10 ms"
    assert in_words(12.3, "s") == "12.30 s"
    assert in_words(33.46, "MB") == "33.46 MB"


def test_percentiles() -> None:
    assert percentile(range(100), 0.95) == 95
    assert percentile([3.0], 0.95) == 3.0


def test_noise_is_how_far_the_median_may_be_off() -> None:
    assert noise_of([2.0]) == 0
    assert noise_of([1.0, 1.0, 1.0, 9.0]) == 0
    few, many = [0.9, 1.0, 1.1], [0.9, 1.0, 1.1] * 9
    assert noise_of(few) == pytest.approx(3 * noise_of(many))
    assert 0.05 < noise_of(few) < 0.2


def _before(tmp_path: Path, *rows: Row, **notes: object) -> Earlier:
    path = tmp_path / "before.json"
    Report(list(rows), {"quick": False, "slurm": False, **notes}).write(path)
    return read_earlier(path, notes)


@pytest.mark.parametrize(
    ("then", "now", "verdict"),
    [
        (Row("m", "w", 1.0, "s", Other("o", 1.0)), Row("m", "w", 3.0, "s", Other("o", 3.0)), "same"),
        (Row("m", "w", 1.0, "s", Other("o", 1.0)), Row("m", "w", 1.4, "s", Other("o", 1.0)), "SLOWER"),
        (Row("m", "w", 1.0, "s", Other("o", 1.0)), Row("m", "w", 0.6, "s", Other("o", 1.0)), "better"),
        (Row("m", "w", 1.0, "/s", Other("o", 1.0)), Row("m", "w", 0.6, "/s", Other("o", 1.0)), "SLOWER"),
        (
            Row("m", "w", 1.0, "s", Other("o", 1.0), noise=0.01),
            Row("m", "w", 1.15, "s", Other("o", 1.0), noise=0.01),
            "SLOWER",
        ),
        (
            Row("m", "w", 1.0, "s", Other("o", 1.0), noise=0.1),
            Row("m", "w", 1.15, "s", Other("o", 1.0), noise=0.1),
            "same",
        ),
        (Row("m", "w", 1.0, "s"), Row("m", "w", 9.0, "s"), ""),
        (Row("m", "w", 30.0, "MB"), Row("m", "w", 34.0, "MB"), "LARGER"),
        (Row("m", "w", 30.0, "MB"), Row("m", "w", 32.0, "MB"), "same"),
        (Row("m", "w", 0.0, "MB"), Row("m", "w", 0.1, "MB"), ""),
    ],
)
def test_what_got_slower_is_told_from_noise(tmp_path: Path, then: Row, now: Row, verdict: str) -> None:
    (change,) = changes(_before(tmp_path, then), Report([now]))
    assert change.verdict == verdict
    assert change.is_worse is verdict.isupper()
    assert (verdict or now.what) in table([change])


@pytest.mark.parametrize(("now", "verdict"), [(1.5, "same"), (1.7, "SLOWER")])
def test_a_quick_run_allows_more(tmp_path: Path, now: float, verdict: str) -> None:
    then = Row("m", "w", 1.0, "s", Other("o", 1.0))
    (change,) = changes(_before(tmp_path, then, quick=True), Report([replace(then, figure=now)]))
    assert change.verdict == verdict


def test_what_cannot_be_compared_is_named(tmp_path: Path) -> None:
    kept, gone, other = (Row("m", what, 1.0, "MB") for what in ("kept", "gone", "other"))
    earlier = _before(tmp_path, kept, gone, Row("n", "not measured now", 1.0, "MB"), machine="a")
    report = Report([kept, other], {"machine": "b"})
    assert [change.row.what for change in changes(earlier, report)] == ["kept"]
    assert differences(earlier, report) == [
        "NOTE: machine was 'a', and is 'b'",
        "only before: m gone",
        "only now: m other",
    ]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (None, "No such file"),
        ("{", "cannot be read"),
        ("[]", "no figures"),
        ('{"rows": {}}', "no figures"),
        ('{"rows": []}', "another version"),
        ('{"rows": [], "format": 2, "quick": true}', "with --quick"),
        ('{"rows": [], "format": 2, "slurm": true}', "with --slurm"),
    ],
)
def test_a_file_that_holds_no_such_figures_is_refused(tmp_path: Path, text: str | None, word: str) -> None:
    path = tmp_path / "before.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BenchError, match=word):
        read_earlier(path, {"quick": False, "slurm": False})


def test_a_quick_run_is_not_compared_with_a_full_one(tmp_path: Path) -> None:
    path = tmp_path / "before.json"
    Report([], {"quick": False}).write(path)
    with pytest.raises(BenchError, match="without --quick"):
        read_earlier(path, {"quick": True})


def test_the_machine_is_measured_by_a_piece_of_work_and_a_bare_python() -> None:
    with Reference(sys.executable) as reference:
        reference.start_python()
    assert 0.0001 < reference.work().figure < 1
    assert reference.work(3).figure == pytest.approx(3 * reference.work().figure)
    assert 0.001 < reference.bare_python().figure < 10


def test_the_peak_of_memory_can_be_forgotten() -> None:
    program = "b = bytearray(60 << 20); del b; print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert peak_memory(process.pid) > 60
        forget_peak(process.pid)
        assert peak_memory(process.pid) < 60
        process.communicate(b"\n")


def test_the_kernel_tells_cpu_and_memory() -> None:
    before, deadline = cpu_of(os.getpid()), time.process_time() + 0.1
    while time.process_time() < deadline:
        pass
    used = cpu_of(os.getpid()).since(before)
    assert 0.05 < used.own < 1
    assert used.children == 0
    assert used.total == used.own
    assert run_times_of(os.getpid())[threading.get_native_id()] > 0.1
    assert 5 < peak_memory(os.getpid()) < 2000
    assert 5 < memory(os.getpid()) <= peak_memory(os.getpid())


def test_commands_are_timed_in_turn_and_must_succeed() -> None:
    quick, slow = in_turn([(["/bin/sh", "-c", ":"], {}), (["/bin/sleep", "0.05"], {})], 2)
    assert len(quick) == len(slow) == 2
    assert min(slow) >= 0.05
    with pytest.raises(BenchError, match="exit 3"):
        in_turn([(["/bin/sh", "-c", "exit 3"], {})], 1)
    assert in_turn([(["/bin/sh", "-c", "exit 3"], {})], 1, {0, 3})
    with pytest.raises(BenchError, match="in vain for rain"):
        wait_until("rain", lambda: False, 0.01)


def test_the_big_cluster_answers_the_daemon_s_questions(cluster: BigCluster, client: SlurmClient) -> None:
    assert [node.hostname for node in client.node_states()] == ["n00000", "n00001", "n00002"]
    listed = list(client.list_jobs())
    assert [each.job_id for each in listed] == list(cluster.jobs)
    assert {(each.phase, each.start_time) for each in listed} == {(Phase.RUNNING, cluster.start)}
    (details,) = client.read_details(cluster.jobs)
    assert not details.broken
    assert [run.key.job_id for run in details.runs] == list(cluster.jobs)
    assert {run.resources[0].hostname for run in details.runs} == {"n00000", "n00001", "n00002"}
    held = [(resource.hostname, resource.cores) for run in details.runs for resource in run.resources]
    assert len(set(held)) == JOBS  # a core of its own for each
    whole = list(client.with_texts(details.runs))
    assert all(f"JobId={run.key.job_id} " in run.slurm_info for run in whole)
    assert sum(bool(run.job_script) for run in whole) == SCRIPTS


def test_jobs_of_the_big_cluster_begin_and_end(cluster: BigCluster, client: SlurmClient) -> None:
    (job_id,) = cluster.begin(1, configuring=True)
    assert job_id == FIRST_JOB + JOBS
    assert _phase(client, job_id) == (Phase.CONFIGURING, None)
    cluster.make_ready([job_id])
    assert _phase(client, job_id) == (Phase.RUNNING, None)
    assert not [each for some in client.ended_between(0, 2_000_000_000) for each in some]
    cluster.end([job_id])
    assert _phase(client, job_id) == (Phase.ENDED, EndState.COMPLETED)
    (ended,) = [each for some in client.ended_between(0, 2_000_000_000) for each in some]
    assert ended.key.job_id == job_id


def _phase(client: SlurmClient, job_id: int) -> tuple[Phase, EndState | None]:
    """As the listing and the details say alike."""
    (listed,) = [each for each in client.list_jobs() if each.job_id == job_id]
    ((run,),) = [details.runs for details in client.read_details([job_id])]
    assert listed.phase is run.phase
    assert listed.start_time == run.key.start_time
    return run.phase, run.end.end_state if run.end else None


def test_what_was_asked_can_be_asked_again(cluster: BigCluster, client: SlurmClient, tmp_path: Path) -> None:
    client.node_states()
    (details,) = client.read_details(cluster.jobs[:2])
    infos = [run.slurm_info for run in client.with_texts(details.runs)]
    calls = read_calls(cluster.folder)
    assert [call.argv[0] for call in calls] == ["sinfo", "scontrol", "squeue", "squeue", "scontrol"]
    assert f"show job {FIRST_JOB}" in calls[-1].stdin
    assert read_calls(cluster.folder) == []
    write_calls(tmp_path / "calls.json", calls)
    wall, cpu, peak = json.loads(_replay(cluster, tmp_path / "calls.json"))
    assert wall > 0
    assert cpu > 0
    assert peak > 5
    assert all(infos)
    assert len(read_calls(cluster.folder)) == len(calls)


def test_a_replay_says_what_failed(cluster: BigCluster, tmp_path: Path) -> None:
    write_calls(tmp_path / "calls.json", [Call(["sacct", "--json"])])
    with pytest.raises(subprocess.CalledProcessError):
        _replay(cluster, tmp_path / "calls.json")


def _replay(cluster: BigCluster, path: Path) -> bytes:
    command = [sys.executable, "-I", "-S", str(REPLAY), str(path)]
    return subprocess.run(command, env=cluster.environ, capture_output=True, check=True).stdout


def test_the_setup_is_read(cluster: BigCluster) -> None:
    commands = Commands(cluster.environ)
    setup = read_cluster_config(commands)
    commands.close()
    assert setup.cluster == CLUSTER
    assert setup.has_accounting


def test_the_backend_notes_what_comes(backend: BenchBackend) -> None:
    cost = backend.bare_loop(30, 10)
    assert cost.wall > 0
    assert cost.cpu > 0
    assert backend.wait_for(START, range(30), 5).keys() == set(range(30))
    assert (backend.count(START), backend.count(STOP), backend.count(NODES)) == (30, 10, 0)
    assert all(abs(told.time - time.time()) < 60 for told in backend.log)


def test_the_state_is_as_after_a_sync(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    prefill(path, CLUSTER, range(1, 2001), 1_700_000_000, NODE_COUNT)
    outbox = Outbox(str(path))
    assert len(outbox.open_runs(CLUSTER)) == 2000
    assert outbox.counts() == {"delivered": 2000}
    assert outbox.checkpoint(CLUSTER)
    outbox.close()


def test_some_starts_of_the_state_may_wait(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    prefill(path, CLUSTER, range(1, 11), 1_700_000_000, NODE_COUNT, pending=4)
    outbox = Outbox(str(path))
    assert len(outbox.open_runs(CLUSTER)) == 10
    assert outbox.counts() == {"delivered": 6, "pending": 4}
    outbox.close()


def test_accounting_may_have_been_read_until_long_ago(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    prefill(path, CLUSTER, range(1, 3), 1_700_000_000, NODE_COUNT, away=86400)
    outbox = Outbox(str(path))
    assert outbox.checkpoint(CLUSTER) == pytest.approx(time.time() - 86400, abs=60)
    outbox.close()


def test_slurmctld_of_the_big_cluster_forgets_and_accounting_does_not(cluster: BigCluster, client: SlurmClient) -> None:
    kept, ended = cluster.begin(2)
    cluster.end([ended])
    cluster.forget(-2)
    listed = [each.job_id for each in client.list_jobs()]
    assert kept in listed
    assert ended not in listed
    assert [each.key.job_id for some in client.ended_between(0, 2_000_000_000) for each in some] == [ended]


def test_squeue_of_the_big_cluster_can_be_held(cluster: BigCluster) -> None:
    cluster.hold_squeue()
    assert not cluster.squeue_is_held()
    command = subprocess.Popen([cluster.folder / "bin" / "squeue"], env=cluster.environ)
    try:
        wait_until("squeue to hang", cluster.squeue_is_held, 60)
        assert command.poll() is None
    finally:
        command.kill()
        command.wait()


def test_mistakes_in_the_command_line_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, word in [(["pol"], "pol"), (["--against", "/nowhere"], "/nowhere")]:
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
        assert word in capsys.readouterr().err
