"""The file is replaced by rename while it runs, as an upgrade does it: nothing is loaded from the new one."""

from __future__ import annotations

from pathlib import Path

from examples.practice.programs import write_program
from examples.practice.site import Site
from examples.practice.slurm.model import JobRequest

DOES_NOT_ANSWER = "#!/bin/sh\nexit 1\n"
HAS_NO_ARCHIVE = "#!/bin/sh\nexit 0\n"
"""Nothing can be loaded from it, and as a hook it does no harm."""


def test_a_daemon_that_waits_for_slurm_meanwhile_has_all_of_itself(copy: Path) -> None:
    """What only NATS needs is loaded when Slurm has answered."""
    with Site(copy, natsServer="nats://127.0.0.1:9") as site:
        scontrol = Path(site.cluster.bin) / "scontrol"
        answering = scontrol.read_text(encoding="utf-8")
        write_program(scontrol, DOES_NOT_ANSWER)
        site.daemon.launch()
        site.wait_for("the first question", lambda: "Slurm does not answer" in site.daemon.log())
        new = copy.with_name("new")
        write_program(new, HAS_NO_ARCHIVE)
        new.rename(copy)
        write_program(scontrol, answering)
        job = site.cluster.submit(JobRequest(duration=1))
        site.wait_for("the job", lambda: site.has_stopped(job))
        assert "Traceback" not in site.daemon.log()
