"""The kinds of jobs that are run on a real Slurm: a table, one row for each kind."""

from __future__ import annotations

from typing import NamedTuple

from .slurm_jobs import Submission

FORGED_TEXT = (
    'it\'s "quoted" |\\ \n   UserId=root(0) Account=root Partition=excl\n'
    "     Nodes=node[03-04] CPU_IDs=0-15 Mem=1 GRES=gpu:h100:4(IDX:0-3)\n   NumNodes=7 StartTime=1"
)
FORGED_JSON = '"}], "job_state": ["CANCELLED"], "gres_detail": ["gpu:h100:4(IDX:0-3)"], \\u0000 \\'
ODD_CHARACTERS = "tab\there\r 🚀 ünï → 日本 \u2028\u200f \x1f\x01 a|b 'c' \"d\" $(e) `f` %A {}"
NO_UTF_8 = "no \udcff\udcfe\udcc3 UTF-8"
"""Three bytes that cannot stand in UTF-8, as Python writes them."""
OPT_OUT = """scontrol update JobId={} AdminComment={"other":1,"disable_cc_submission":true}"""


class Case(NamedTuple):
    """One kind of job and what cc-backend must be told about it beside what Slurm says."""

    job: Submission
    shared: str = "multi_user"
    state: str = "completed"
    tasks: int = 1
    """Array tasks or components of a heterogeneous job: each is a job with a row of its own."""
    once_reported: tuple[str, ...] = ()
    """What an administrator then does to it; {} is its id."""
    later: tuple[str, ...] = ()
    """The same some polls later."""


def on_main(*options: str, script: str = "sleep 8") -> Submission:
    return Submission(options, script)


CASES = {
    "whole node": Case(on_main("-N1", "--exclusive"), shared="none"),
    "exclusive partition": Case(on_main("-n1", "--partition=excl"), shared="none"),
    "one core": Case(on_main("-n1")),
    "several nodes": Case(on_main("-N2", "-n4")),
    "array": Case(on_main("-n1", "--array=0-3"), tasks=4),
    "array with a limit": Case(on_main("-n1", "--array=2,5-7%2"), tasks=4),
    "heterogeneous": Case(on_main("-n1", ":", "-n2", "--gres=gpu:1"), tasks=2),
    # Hardware threads
    "block": Case(on_main("-n3", "--nodelist=node01")),
    "interleaved": Case(on_main("-n3", "--nodelist=node03")),
    "cores only": Case(on_main("-n3", "--nodelist=node04")),
    "two numberings": Case(on_main("-N2", "-n4", "--nodelist=node[02-03]")),
    "two numberings, one of cores": Case(on_main("-N2", "-n4", "--nodelist=node[03-04]")),
    "three CPUs": Case(on_main("-n1", "-c3")),
    "no multithreading": Case(on_main("-n2", "--hint=nomultithread")),
    "one thread of each core": Case(on_main("-n2", "--threads-per-core=1")),
    "core kept for the system": Case(on_main("-N1", "--exclusive", "--partition=spec"), shared="none"),
    # GPUs
    "GPUs": Case(Submission(("-N2", "--gres=gpu:2"), "sleep 8", minutes=30)),
    "typed GPUs": Case(on_main("-n1", "--gres=gpu:h100:3")),
    "GPUs of tasks": Case(on_main("-N2", "-n3", "--gpus-per-task=1")),
    # Users, times and ends
    "of another user": Case(Submission(("-n1", "-c3"), "sleep 8", user="alice")),
    "alone with its user": Case(on_main("-n1", "--exclusive=user"), shared="single_user"),
    "longer than a year": Case(Submission(("-n1",), "sleep 8", minutes=600_000)),
    "failed": Case(on_main("-n1", script="sleep 6; exit 3"), state="failed"),
    "timeout": Case(Submission(("-n1",), "sleep 600", minutes=1), state="timeout"),
    "cancelled": Case(on_main("-n1", script="sleep 600"), state="cancelled", once_reported=("scancel {}",)),
    "suspended": Case(
        on_main("-n1", script="sleep 25"), once_reported=("scontrol suspend {}",), later=("scontrol resume {}",)
    ),
    "shrunk": Case(on_main("-N2", "-n4", script="sleep 12"), once_reported=("scontrol update JobId={} NumNodes=1",)),
    # Texts
    "forged name": Case(Submission(("-n1", "--gres=gpu:1"), "sleep 8", name=FORGED_TEXT)),
    "forged comment": Case(Submission(("-n1", "--gres=gpu:1"), "sleep 8", comment=FORGED_TEXT)),
    "JSON in name and comment": Case(Submission(("-n1",), "sleep 8", name=FORGED_JSON, comment=FORGED_JSON)),
    "odd characters": Case(Submission(("-n1",), "sleep 8", name=ODD_CHARACTERS, comment=ODD_CHARACTERS)),
    "no UTF-8": Case(Submission(("-n1",), f"sleep 8 # {NO_UTF_8}", name=NO_UTF_8, comment=NO_UTF_8)),
    "long script": Case(on_main("-n1", script="sleep 8\n" + "# as long as that\n" * 90_000)),
}


class Brief(NamedTuple):
    """Jobs that are over before anybody can look at them."""

    job: Submission
    times: int


BRIEF = {
    "one second": Brief(Submission(("-n1", "--gres=gpu:1"), "sleep 1"), 30),
    "no time": Brief(Submission(("-n1", "--gres=gpu:1"), "true"), 5),
}
HELD = Submission(("-n1", "--hold"), "sleep 3")


class Unreported(NamedTuple):
    """A kind of job that cc-backend must never hear of."""

    job: Submission
    state: str = "COMPLETED"
    """Slurm's word at its end."""
    while_held: tuple[str, ...] = ()


UNREPORTED = {
    "cancelled while pending": Unreported(HELD, "CANCELLED", ("scancel {}",)),
    "opted out": Unreported(HELD, while_held=(OPT_OUT, "scontrol release {}")),
    "in an ignored partition": Unreported(on_main("-n1", "--partition=private", script="sleep 3")),
    "of an ignored user": Unreported(Submission(("-n1",), "sleep 3", user="carol")),
}
IGNORED = {"ignorePartitions": "^private$", "ignoreUsers": "^carol$"}
