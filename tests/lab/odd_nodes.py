"""Jobs on the cluster of odd nodes, and what Slurm says of them and of the nodes: the right answers of the tests.

Cores and devices come from the text of `scontrol show job -d`, the operating system's numbers from slurmd's log of the
CPUs that it binds a job to, and whether a node can be given jobs from slurmctld, which is asked for it.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from .namespaces import wait_for
from .odd_conf import ADDED, ADDRESSES, ALL_NODES, BLOCK, CLOUD_NODES, DEVICES_OF, MACHINES, NUMBERING, ODD_CLUSTER
from .slurm_conf import SHIPPED_FILE
from .slurm_jobs import Held, Submission, cancel, field, numbers, submit, wait_until_running
from .slurm_nodes import reported_figures, reported_words
from .without_slurmdbd import Times, show, wait_for_times

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .installation import Installation
    from .odd_cluster import OddCluster

POLL_SECONDS = 2
PATIENCE_SECONDS = 30
"""Only what is not reported at all takes so long."""
BOOTING_CLOUD, ORDERED_CLOUD = CLOUD_NODES
"""The first boots for a job, the second because an administrator wants it."""


def on(node: str, *options: str) -> Submission:
    return Submission((f"--nodelist={node}", *options), "sleep 600")


FIRST_JOBS = {
    "7 CPUs where slurm.conf has CPUs alone": on("cpus1", "-n7"),
    "1 CPU where slurm.conf has CPUs alone": on("cpus1", "-n1"),
    "fewer cores than the machine": on("fewer1", "-n3"),
    "one thread of each core": on("single1", "-n3"),
    "CPUs that are cores": on("halved1", "-n3"),
    "boards": on("boards1", "-n9"),
    "sockets in turn": on("crossed1", "-n5"),
    "both slices of a card": on("mig1", "--gres=gpu:1g.10gb:2"),
    "a slice alone on its card": on("mig1", "--gres=gpu:3g.40gb:1"),
    "a card beside slices": on("mig1", "--gres=gpu:a100:1"),
    "not called gpu": on("dcu1", "-n2", "--gres=dcu:3"),
    "types in another order": on("types1", "--gres=gpu:b:1"),
    "a node by number": on("n2", "-n3", "--gres=gpu:1"),
    "an added node": on("added1", "-n5", "--gres=gpu:1", "--partition=added"),
    "a node without partition": on("alone1", "-n3", "--gres=gpu:1", "--partition=left"),
}
ACROSS = "nodes in another order"
LATER_JOBS = {ACROSS: on("types1,n[2,10],added1", "-N4", "-n9", "--gres=gpu:1", "--partition=across")}
"""After the first ones, so that it finds other cores and GPUs free on each node."""
BOOTING = "a node that boots"
BOOTING_JOBS = {BOOTING: on(BOOTING_CLOUD, "-n3", "--gres=gpu:1", "--partition=cloud")}
JOBS = {**FIRST_JOBS, **LATER_JOBS, **BOOTING_JOBS}
OFF, BOOTS, BOOTS_FOR_A_JOB, GOES_OFF, IN_NO_PARTITION = "off", "boots", "boots for a job", "goes off", "no partition"
OTHER_NAME = "added-1.example.org"
"""Of the added node, by hostnameRewrite."""
PROBE = on(ORDERED_CLOUD, "-n1", "--partition=cloud")

TOPOLOGY: dict[str, str | list[int]] = {
    "cpus1": NUMBERING["^cpus"],
    "fewer1": NUMBERING["^fewer"],
    "single1": NUMBERING["^single"],
    "crossed1": NUMBERING["^crossed"],
    **dict.fromkeys(["halved1", "boards1", ADDED], "block"),
}
"""What is right for each kind of machine and layout."""


class OddJob(NamedTuple):
    """A job as scontrol shows it while it runs."""

    job_id: int
    start_time: int
    """Unix seconds. Slurm sets it anew when a node that had to boot is ready."""
    num_nodes: int
    num_cpus: int
    held: dict[str, Held]
    """Devices of all kinds are among the gpus."""
    bound: dict[str, tuple[int, ...]]
    """The CPUs by the operating system's numbers that slurmd bound it to: on the node where its script runs."""

    def hwthreads(self, node: str) -> list[int]:
        """Right for the node, ascending: slurmd's own, or what slurm.conf's layout makes of its machine."""
        by_machine = [MACHINES.get(node, BLOCK).numbers[cpu] for cpu in self.held[node].cpu_ids]
        return sorted(self.bound.get(node, by_machine))

    def cards(self, node: str) -> list[str]:
        """Addresses, each once."""
        addresses = ADDRESSES.get(node)
        return sorted({addresses[index] for index in self.held[node].gpus}) if addresses else []

    def num_cards(self, node: str) -> int:
        """Also of those without an address."""
        return len(self.cards(node)) if node in ADDRESSES else len(self.held[node].gpus)


class NodeMoment(NamedTuple):
    """A node at a moment of its life."""

    slurm_words: str
    """IDLE+CLOUD+POWERING_DOWN."""
    reported: set[str]
    """Those words that cc-backend understands."""
    is_given_jobs: bool | None = None
    """Whether slurmctld gave it a job right then; None if it was not asked."""


class Begun(NamedTuple):
    """All jobs run."""

    ids: dict[str, int]
    first_start: int
    """When slurmctld had the job on the booting node begin, before the node was ready."""
    moments: dict[str, NodeMoment]


class OddNodes(NamedTuple):
    """What Slurm and cc-backends know at the end."""

    jobs: dict[str, OddJob]
    begun: Begun
    ended: dict[str, Times]
    figures: dict[str, tuple[int, ...]]
    """What was reported of the nodes, in the order of slurm_nodes.FIGURES, when no job was missing."""
    expected_figures: dict[str, tuple[int, ...]]
    devices: dict[str, list[str]]
    """The device files of some nodes, in the order of `slurmd -G`."""
    topology: dict[str, str]
    """What `-topology -json` prints on each kind of machine."""
    hooked: Installation
    """Started before all jobs, and told by Slurm's hooks."""
    late: Installation
    """Started when all jobs ran and one node had no partition any more; it hears of no hooks."""
    renamed: Installation
    """As the late one, but hostnameRewrite has another name for the added node, and acceleratorGres only names gpu."""


def run_odd_nodes(lab: OddCluster, hooked: Installation, late: Installation, renamed: Installation) -> OddNodes:
    """Runs all jobs, and starts the daemons; about a minute."""
    devices = {node: device_files(lab, node) for node in DEVICES_OF}
    topology = {node: lab.run_on_machine(node, str(SHIPPED_FILE), "-topology", "-json") for node in TOPOLOGY}
    configure(hooked)
    hooked.start()
    begun = begin_jobs(lab, hooked)
    jobs = {name: odd_job(lab, job_id) for name, job_id in begun.ids.items()}
    start_without_hooks(late, renamed)
    daemons = (hooked, late, renamed)
    for installed in daemons:
        wait_for_all(installed.wait_for_starts, begun.ids.values())
    expected = expected_figures(lab, jobs.values())
    hooked.backend.wait_for(lambda: reported_figures(hooked) == expected, PATIENCE_SECONDS)
    figures = reported_figures(hooked)
    cancel(lab, begun.ids.values())
    ended = {name: wait_for_times(lab, job_id) for name, job_id in begun.ids.items()}
    for installed in daemons:
        wait_for_all(installed.wait_for_stops, begun.ids.values())
    return OddNodes(jobs, begun, ended, figures, expected, devices, topology, *daemons)


def begin_jobs(lab: OddCluster, hooked: Installation) -> Begun:
    """Returns when all of them run. The first one waits for its node, and the node for this function."""
    off = look(hooked, lab, BOOTING_CLOUD)
    ids = {name: submit(lab, job) for name, job in BOOTING_JOBS.items()}
    first_start = wait_for("a job that waits for its node", lambda: configuring_since(lab, ids[BOOTING]), seconds=30)
    moments = {OFF: off._replace(is_given_jobs=True)}
    for jobs in (FIRST_JOBS, LATER_JOBS):
        these = {name: submit(lab, job) for name, job in jobs.items()}
        wait_until_running(lab, these.values())
        ids |= these
    lab.wait_for_word(BOOTING_CLOUD, "POWERING_UP", seconds=30)
    moments[BOOTS_FOR_A_JOB] = look(hooked, lab, BOOTING_CLOUD)
    lab.boot(BOOTING_CLOUD)
    lab.output("scontrol", "update", "PartitionName=left", "Nodes=")
    moments[IN_NO_PARTITION] = look(hooked, lab, "alone1")
    moments |= switch_on_and_off(hooked, lab)
    wait_until_running(lab, ids.values(), seconds=120)
    return Begun(ids, first_start, moments)


def configure(installed: Installation, **settings: Any) -> None:
    """The daemon has addresses and numbers of all nodes but those in the cloud."""
    settings.setdefault("acceleratorGres", ["gpu", "dcu"])
    installed.configure(
        gpuPciAddrs={f"^{node}$": addresses for node, addresses in ADDRESSES.items()},
        hwthreadNumbering=NUMBERING,
        slurmPollInterval=POLL_SECONDS,
        **settings,
    )


def start_without_hooks(late: Installation, renamed: Installation) -> None:
    configure(late)
    configure(renamed, hostnameRewrite=[["^added([0-9]+)$", r"added-\1.example.org"]], acceleratorGres=["gpu"])
    for installed in (late, renamed):
        installed.start()


def wait_for_all(wait: Callable[[Iterable[int], float], None], job_ids: Iterable[int]) -> None:
    """The tests say which ones are missing, each for itself."""
    with contextlib.suppress(AssertionError):
        wait(job_ids, PATIENCE_SECONDS)


def configuring_since(lab: OddCluster, job_id: int) -> int:
    """The start time of a job whose node has yet to boot; 0 for one that has none."""
    text = show(lab, job_id)
    return int(field(text, "StartTime", r"(\d+)")) if "JobState=CONFIGURING" in text else 0


def switch_on_and_off(installed: Installation, lab: OddCluster) -> dict[str, NodeMoment]:
    """A node in the cloud is ordered to boot and to be off again, and each time slurmctld is asked for it."""
    moments = {}
    lab.output("scontrol", "update", f"NodeName={ORDERED_CLOUD}", "State=POWER_UP")
    lab.wait_for_word(ORDERED_CLOUD, "POWERING_UP", seconds=30)
    moments[BOOTS] = look(installed, lab, ORDERED_CLOUD)._replace(is_given_jobs=is_given_jobs(lab))
    lab.boot(ORDERED_CLOUD)
    wait_for(f"{ORDERED_CLOUD} to be up", lambda: lab.word_of(ORDERED_CLOUD) == "IDLE+CLOUD", seconds=60)
    lab.output("scontrol", "update", f"NodeName={ORDERED_CLOUD}", "State=POWER_DOWN")
    lab.wait_for_word(ORDERED_CLOUD, "POWERING_DOWN", seconds=30)
    lab.stop_service(f"slurmd-{ORDERED_CLOUD}")
    moments[GOES_OFF] = look(installed, lab, ORDERED_CLOUD)._replace(is_given_jobs=is_given_jobs(lab))
    return moments


def is_given_jobs(lab: OddCluster) -> bool:
    """Whether slurmctld gives the node of PROBE a job, or has it wait and says why."""
    job_id = submit(lab, PROBE)
    text = wait_for("slurmctld to look at the job", lambda: decided(show(lab, job_id)), seconds=60, every=0.2)
    cancel(lab, [job_id])
    return bool(field(text, "NodeList", r"(\S*)"))


def decided(text: str) -> str:
    """The record of a job, once it has nodes or a reason to wait."""
    return text if field(text, "NodeList", r"(\S*)") or field(text, "Reason", r"(\S+)") != "None" else ""


def look(installed: Installation, lab: OddCluster, node: str) -> NodeMoment:
    """What Slurm says of a node now, and what cc-backend is told of it from then on."""
    words = lab.word_of(node)
    is_told = next_report(installed, node) and next_report(installed, node)  # the first may have been on its way
    return NodeMoment(words, reported_words(installed, node) if is_told else set())


def next_report(installed: Installation, node: str) -> bool:
    """Whether one more comes about a node."""
    before = installed.backend.node_states.get((ODD_CLUSTER, node))

    def is_another() -> bool:
        return installed.backend.node_states.get((ODD_CLUSTER, node)) != before

    return installed.backend.wait_for(is_another, PATIENCE_SECONDS)


def odd_job(lab: OddCluster, job_id: int) -> OddJob:
    """What scontrol and slurmd say of a job that runs."""
    text = show(lab, job_id, "-d")
    host = field(text, "BatchHost", r"(\S+)")
    bound = wait_for("slurmd to bind the job", lambda: bound_cpus(lab, host, job_id), seconds=10)
    return OddJob(
        job_id=job_id,
        start_time=int(field(text, "StartTime", r"(\d+)")),
        num_nodes=int(field(text, "NumNodes", r"(\d+)")),
        num_cpus=int(field(text, "NumCPUs", r"(\d+)")),
        held=held_by_node(lab, text),
        bound={host: bound},
    )


def bound_cpus(lab: OddCluster, host: str, job_id: int) -> tuple[int, ...]:
    """From slurmd's `task/affinity: batch_bind: job 5 CPU final HW mask for node: 0x1313`; () before it says so."""
    log = lab.slurmd_log(host).read_text(encoding="utf-8")
    found = re.search(rf" job {job_id} CPU final HW mask for node: 0x([0-9A-F]+)$", log, re.M)
    mask = int(found[1], 16) if found else 0
    return tuple(cpu for cpu in range(mask.bit_length()) if mask >> cpu & 1)


def held_by_node(lab: OddCluster, text: str) -> dict[str, Held]:
    """Of one job's record."""
    held = {}
    for hosts, cpu_ids, gres in re.findall(r"^     Nodes=(\S+) CPU_IDs=(\S+) Mem=\d+ GRES=(\S*)$", text, re.M):
        devices = [index for indices in re.findall(r"\(IDX:([\d,-]+)\)", gres) for index in numbers(indices)]
        for host in lab.output("scontrol", "show", "hostnames", hosts).split():
            held[host] = Held(tuple(numbers(cpu_ids)), tuple(devices))
    return held


def device_files(lab: OddCluster, node: str) -> list[str]:
    """What slurmd would use there, in the order in which Slurm counts."""
    said = lab.run_on_machine(node, "slurmd", "-G", "-N", node)
    return re.findall(r" File=(\S+)", said)


def expected_figures(lab: OddCluster, jobs: Iterable[OddJob]) -> dict[str, tuple[int, ...]]:
    """By node, in the order of FIGURES; of devices the cards are counted, where they are known."""
    figures: dict[str, tuple[int, ...]] = {}
    for node in ALL_NODES:
        text = lab.output("scontrol", "show", "node", node)
        here = [job for job in jobs if node in job.held]
        cards = {card for job in here for card in job.cards(node)}
        devices = len(cards) if node in ADDRESSES else sum(len(job.held[node].gpus) for job in here)
        cpus, memory = int(field(text, "CPUAlloc", r"(\d+)")), int(field(text, "AllocMem", r"(\d+)"))
        figures[node] = (cpus, memory, devices, len(here))
    return figures
