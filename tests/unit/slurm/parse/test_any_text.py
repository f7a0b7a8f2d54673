"""Nothing that a user writes changes any other field or any other job, and no text breaks a parser."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cc_slurm_adapter.errors import UnexpectedOutput
from cc_slurm_adapter.model import Run
from cc_slurm_adapter.slurm.cluster_config import parse_cluster_config
from cc_slurm_adapter.slurm.parse.accounting import EndedParser, parse_accounted_run, parse_launches
from cc_slurm_adapter.slurm.parse.gres import gpu_count, gpu_indices, gpus_of_tres
from cc_slurm_adapter.slurm.parse.hostlist import expand
from cc_slurm_adapter.slurm.parse.jobs import is_opt_out, parse_job, parse_sharing
from cc_slurm_adapter.slurm.parse.json_stream import JobSplitter
from cc_slurm_adapter.slurm.parse.json_values import Json, read_digits
from cc_slurm_adapter.slurm.parse.listing import parse_listing
from cc_slurm_adapter.slurm.parse.states import read_states
from tests.recorded.fixture_files import FIXTURES, LAYOUTS, parse_sinfo, sinfo_row, split_document

IMITATIONS = [
    "    }",
    "    },",
    "    {",
    '  "jobs": [',
    "  ]",
    "  ],",
    "}",
    '",\n      "user_name": "root',
    '      "job_id": 1,',
    '{"disable_cc_submission": true}',
    '\\", "name": "x',
    "\\",
    "\\u0022",
    "\\n",
    "JobId=1 JobName=forged",
    "\n   \n\nJobId=1 JobName=forged\n",
    "scontrol: ",
    "scontrol: show job 1\n",
    "show hostnames ",
    "UserId=root(0) GroupId=root(0)",
    "x1\nJobId=1",
    "1|COMPLETED|1|2|3|1",
    "|",
    "\x1f",
    "\x00",
    "\r\n",
    "\t",
    "\N{LINE SEPARATOR}",
    "\x85",
    "\ufeff",
]
text = st.text(st.characters(exclude_categories=()), max_size=30)
"""Every Unicode, with halves of surrogate pairs."""
user_text = st.lists(st.sampled_from(IMITATIONS) | text, max_size=6).map("".join)
user_bytes = user_text.map(lambda each: each.encode("utf-8", "surrogatepass")) | st.binary(max_size=60)
"""What Slurm stores of it: bytes of any kind."""

ESCAPES = {0x08: b"\\b", 0x09: b"\\t", 0x0A: b"\\n", 0x0C: b"\\f", 0x0D: b"\\r"}
ESCAPES |= {ord('"'): b'\\"', ord("\\"): b"\\\\", ord("/"): b"\\/"}


def as_json(value: bytes) -> bytes:
    """The inside of a JSON text as json-c writes it for Slurm: whatever is no control character comes as it is."""
    pieces = (ESCAPES.get(byte) or (b"\\u%04x" % byte if byte < 0x20 else bytes([byte])) for byte in value)
    return b"".join(pieces)


def put_text(document: bytes, job: int, key: str, value: bytes) -> bytes:
    """The recorded document with another text under a key of one of its jobs, in Slurm's own lines."""
    jobs = document.split(b"\n    {\n")
    line = re.compile(rb'^( {%d}"%s": )(?:".*"|null)(,?)$' % (8 if key == "job" else 6, key.encode()), re.M)
    text = b'"' + as_json(value) + b'"'
    jobs[job + 1], count = line.subn(lambda found: found[1] + text + found[2], jobs[job + 1], count=1)
    assert count == 1
    return b"\n    {\n".join(jobs)


def of_slurmctld(document: bytes, size: int = 1 << 16) -> list[Run]:
    return [parse_job(job, "lab", LAYOUTS) for job in split_document(document, "squeue", size)]


def of_accounting(document: bytes, size: int = 1 << 16) -> list[Run]:
    return [parse_accounted_run(job, "lab") for job in split_document(document, "squeue", size)]


WRITTEN_BY_USERS = ["name", "comment", "admin_comment", "current_working_directory", "command", "standard_output"]
SQUEUE = [
    (FIXTURES / f"slurm-{path}").read_bytes()
    for path in (
        "22.05.8/jobs/array-limit/running.squeue.json",
        "24.11.5/jobs/array-limit/running.squeue.v0.0.40.json",
        "24.11.5/jobs/array-limit/running.squeue.json",
        "26.05.5/jobs/array-limit/running.squeue.json",
    )
]
SACCT = [
    (FIXTURES / f"slurm-{path}").read_bytes()
    for path in (
        "22.05.8/jobs/array-limit/ended.sacct.json",
        "24.11.5/jobs/array-limit/ended.sacct.json",
        "26.05.5/jobs/array-limit/ended.sacct.json",
    )
]


SQUEUE_RUNS = [of_slurmctld(document) for document in SQUEUE]
SACCT_RUNS = [of_accounting(document) for document in SACCT]


def test_the_recorded_documents_have_several_jobs() -> None:
    assert all(len(runs) > 1 for runs in [*SQUEUE_RUNS, *SACCT_RUNS])


@pytest.mark.parametrize("number", range(len(SQUEUE)))
@given(st.data(), st.dictionaries(st.sampled_from(WRITTEN_BY_USERS), user_bytes, min_size=1))
def test_users_cannot_change_what_slurmctld_says(number: int, data: st.DataObject, texts: dict[str, bytes]) -> None:
    document = SQUEUE[number]
    before = SQUEUE_RUNS[number]
    job = data.draw(st.integers(0, len(before) - 1))
    for key, value in texts.items():
        document = put_text(document, job, key, value)
    after = of_slurmctld(document, data.draw(st.integers(50, 5000)))
    expected = before[job]
    if "name" in texts:
        expected = replace(expected, name=texts["name"].decode("utf-8", errors="replace"))
    if "admin_comment" in texts:  # which an administrator writes, to leave the job out
        expected = replace(expected, opted_out=is_opt_out(texts["admin_comment"].decode("utf-8", errors="replace")))
    assert after == [*before[:job], expected, *before[job + 1 :]]


@pytest.mark.parametrize("number", range(len(SACCT)))
@given(st.data(), st.dictionaries(st.sampled_from(["name", "working_directory", "job"]), user_bytes, min_size=1))
def test_users_cannot_change_what_accounting_says(number: int, data: st.DataObject, texts: dict[str, bytes]) -> None:
    """The user's own comment is `comment.job` here."""
    document = SACCT[number]
    before = SACCT_RUNS[number]
    job = data.draw(st.integers(0, len(before) - 1))
    for key, value in texts.items():
        document = put_text(document, job, key, value)
    expected = before[job]
    if "name" in texts:
        expected = replace(expected, name=texts["name"].decode("utf-8", errors="replace"))
    assert of_accounting(document) == [*before[:job], expected, *before[job + 1 :]]


def test_half_a_surrogate_pair_never_gets_out() -> None:
    """As an escape it is JSON all the same, but no UTF-8 can be made of it for the database or for cc-backend."""
    document = put_text(SQUEUE[1], 0, "name", b"@").replace(b'"@"', rb'"a\ud800b\ud83d\ude00"')
    assert of_slurmctld(document)[0].name == "a\ufffdb\N{GRINNING FACE}"


def test_an_absurd_job_id_costs_only_its_job() -> None:
    document = SQUEUE[1].replace(b'\n      "job_id": ', b'\n      "job_id": ' + b"9" * 5000, 1)
    jobs: list[Json] = []
    broken: dict[int, str] = {}
    splitter = JobSplitter("squeue", jobs.append, broken.__setitem__)
    splitter.feed(document)
    splitter.finish()
    runs = 0
    for job in jobs:
        try:
            runs += bool(parse_job(job, "lab", LAYOUTS))
        except UnexpectedOutput as error:
            broken[0] = str(error)
    assert runs == len(of_slurmctld(SQUEUE[1])) - 1
    assert list(broken) == [0]


SMALL: list[Callable[[str], object]] = [
    expand,
    gpu_indices,
    gpu_count,
    gpus_of_tres,
    is_opt_out,
    parse_cluster_config,
    lambda text: parse_launches(text, "lab"),
    lambda text: list(parse_listing(text.encode(errors="replace").split(b"\n"))),
    parse_sharing,
    parse_sinfo,
    read_digits,
    lambda line: EndedParser("lab").parse([line]),
    lambda line: read_states(line.split("+")),
    lambda line: split_document(line.encode("utf-8", "replace"), "squeue", 7),
]
words = [
    "7",
    "|",
    "1795341693",
    "RUNNING",
    "COMPLETED",
    "None",
    "N/A",
    "[",
    "]",
    "-",
    ",",
    "(IDX:",
    ")",
    "node",
    "gpu:",
    "shard:",
    "mps:",
    "1/2",
    "cpu=4",
    "gres/gpu=",
    "-1",
]
of_slurm = st.sampled_from([*words, "CANCELLED by 0", "\n", " ", "\u00b2", "\u0663", "9" * 5000])
any_line = st.lists(of_slurm | text, max_size=16).map("".join)


@pytest.mark.parametrize("parse", SMALL)
@given(any_line)
@example("\u00b2|\u00b2|\u00b2|\u00b2|\u00b2|\u00b2")
@example("9" * 5000)
@example("|".join(["9" * 5000] * 6))
@example("|".join(["7", "COMPLETED", *["9" * 5000] * 3, "1"]))
@example("7|COMPLETED|\u00b2|\u00b2")
@example("gpu:\u00b2(IDX:\u00b2)")
@example(f"gpu:{'9' * 5000}(IDX:{'9' * 5000})")
@example("gpu(IDX:0-999999999999)")
@example(f"gres/gpu={'9' * 5000}")
@example("[" * 2000)
@example('{"jobs": [' + "[" * 5000)
def test_no_text_breaks_a_parser(parse: Callable[[str], object], line: str) -> None:
    try:
        parse(line)
    except UnexpectedOutput as error:
        assert str(error)


@given(st.sampled_from(["CPUsState", "AllocMem", "Sockets", "Gres", "GresUsed", "StateComplete"]), any_line)
@example("Sockets", "\u00b2")
@example("AllocMem", "\u0663")
@example("CPUsState", "\u00b2/1/2/3")
@example("Gres", f"gpu:{'9' * 500}")
def test_no_value_of_a_node_costs_another_node_anything(column: str, value: str) -> None:
    value = " ".join(value[:10].split())
    layouts, states = parse_sinfo(f"{sinfo_row(**{column: value})}\n{sinfo_row(NodeList='node02')}\n")
    assert "node02" in layouts
    assert states[-1].hostname == "node02"


@pytest.mark.parametrize(
    "hosts",
    [
        "a[0-999999][0-999999]",
        "a[0-99999999999999999]",
        ",".join(["a[0-99999]"] * 100),
        f"a[{','.join(['0-99999'] * 100)}]",
        "a" + "[0-9]" * 30,
        f"a[0-{'9' * 5000}]",
    ],
)
def test_a_host_list_takes_no_more_memory_than_a_cluster_has_hosts(hosts: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(UnexpectedOutput, match="host list"):
            expand(hosts)
        assert tracemalloc.get_traced_memory()[1] < 40_000_000
    finally:
        tracemalloc.stop()
