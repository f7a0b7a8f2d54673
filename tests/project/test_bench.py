"""The parts of the benchmark that can be wrong without anybody seeing it: budgets, the stand-ins, what is counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cc_slurm_adapter.model import EndState, Phase
from cc_slurm_adapter.outbox.outbox import Outbox
from cc_slurm_adapter.slurm.client import SlurmClient
from cc_slurm_adapter.slurm.cluster_config import read_cluster_config
from cc_slurm_adapter.slurm.commands import Commands
from tests.bench.__main__ import main
from tests.bench.backend import NODES, START, STOP, BenchBackend
from tests.bench.big_cluster import CLUSTER, FIRST_JOB, BigCluster
from tests.bench.prefill import prefill
from tests.bench.processes import BenchError, cpu_of, in_turn, memory, peak_memory, run_times_of, wait_until
from tests.bench.report import Budget, Other, Report, Row, in_words, percentile
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
        (Row("m", "w", 2.0, "s", budget=Budget(2.0)), True),
        (Row("m", "w", 2.1, "s", budget=Budget(2.0)), False),
        (Row("m", "w", 2.0, "s", budget=Budget(2.0, at_least=True)), True),
        (Row("m", "w", 1.9, "s", budget=Budget(2.0, at_least=True)), False),
        (Row("m", "w", 3.0, "s", Other("o", 2.0), Budget(1.5, of_ratio=True)), True),
        (Row("m", "w", 3.1, "s", Other("o", 2.0), Budget(1.5, of_ratio=True)), False),
        (Row("m", "w", 3.1, "s", Other("o", 0.0), Budget(1.5, of_ratio=True)), False),
        (Row("m", "w", 3.1, "s", None, Budget(1.5, of_ratio=True)), False),
    ],
)
def test_a_budget_is_kept_or_missed(row: Row, met: bool) -> None:
    assert row.is_met is met


def test_a_report_is_a_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(notes={"python": "3"})
    report.add("poll", "time", 0.3, "s", other=Other("alone", 0.2), budget=Budget(0.25))
    report.add("poll", "memory", 30.0, "MB")
    head, first, second = report.table().splitlines()
    assert first.split() == ["poll", "time", "0.30", "s", "0.20", "s", "(alone)", "1.50", "<=", "0.25", "s", "MISSED"]
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
    report.add("poll", "time", 0.2, "s", budget=Budget(0.25))
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
