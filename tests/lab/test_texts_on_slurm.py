"""slurmInfo from one question for all jobs is what scontrol says of each, whatever users write."""

from __future__ import annotations

from pathlib import Path

import pytest

from cc_slurm_adapter.model import RunKey
from cc_slurm_adapter.slurm.bulk_texts import COMMAND, BulkTexts, _Writer

from .slurm_conf import CLUSTER
from .slurm_lab import SlurmLab

pytestmark = pytest.mark.slurm


def hold(lab: SlurmLab, comment: str, *options: str) -> int:
    """The id of a job that waits for ever."""
    argv = ["sbatch", "--parsable", "--hold", f"--comment={comment}", *options, "--wrap=true"]
    return int(lab.output(*argv, user="alice"))


@pytest.mark.usefixtures("installation")
def test_the_texts_of_all_jobs_are_those_of_each(lab: SlurmLab, tmp_path: Path) -> None:
    honest = hold(lab, "plain")
    forging = hold(lab, f"x\n   \n\nJobId={honest} JobName=forged\n   UserId=root(0)\n\nJobId=999999 forged")
    array = hold(lab, "plain", "--array=1-2")
    last = hold(lab, "JobId=1 in a line")
    answer = lab.output(*COMMAND, user="alice").encode()
    keys = {RunKey(CLUSTER, job_id, 0) for job_id in (honest, forging, array, last)}
    with (tmp_path / "infos").open("w+b", buffering=0) as file:
        writer = _Writer(file, {key.job_id for key in keys})
        for at in range(0, len(answer), 100):
            writer.feed(answer[at : at + 100])
        writer.finish()
        infos = BulkTexts(file, writer.places, keys)
        found = {key.job_id: infos.get(key) for key in keys}
    one_by_one = {job_id: lab.output("scontrol", "show", "job", str(job_id), user="alice").rstrip() for job_id in found}
    assert found[honest] is None  # it is asked for by itself
    assert found[array] == one_by_one[array]
    assert found[last] == one_by_one[last]
    assert one_by_one[forging].startswith(found[forging] or "")
    assert (found[forging] or "").startswith(f"JobId={forging} ")
