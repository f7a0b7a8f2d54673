"""What hook and daemon agree on: the message that is sent over a socket, and the names of event files.

A message is one JSON object of environment values, ended by the end of the stream. There is no reply. With a shared
secret a signature line precedes it (see `signature`). An event file is empty: its name holds the whole event.

The hook loads this module for every job, so it imports nothing that is slow to load, such as json or re.
"""

from __future__ import annotations

from _collections_abc import Mapping

from cc_slurm_adapter.errors import AdapterError
from cc_slurm_adapter.system.event_files import CONTEXT, LONGEST_WORD, consists_of, nameable, split_event_name

try:
    from _json import encode_basestring_ascii as quoted  # what json uses
except ImportError:  # a Python without the parts of json that are written in C
    from json.encoder import encode_basestring_ascii as quoted

MAX_MESSAGE = 64 * 1024
"""Most bytes of a message, without its signature."""
MAX_JOB_ID = 2**31 - 1
"""The largest job id. squeue refuses a whole list because of one larger id, and scontrol reads 2**32 as all jobs."""
MAX_DIGITS = 19
"""Most digits of a job id, with zeros in front."""

VARIABLES = (
    "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE",
    "CUDA_VISIBLE_DEVICES",
    "GPU_DEVICE_ORDINAL",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_COUNT",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_ARRAY_TASK_MAX",
    "SLURM_ARRAY_TASK_MIN",
    "SLURM_ARRAY_TASK_STEP",
    "SLURM_CLUSTER_NAME",
    "SLURM_JOB_ACCOUNT",
    "SLURM_JOB_COMMENT",
    "SLURM_JOB_CONSTRAINTS",
    "SLURM_JOB_CPUS_PER_NODE",
    "SLURM_JOB_DERIVED_EC",
    "SLURM_JOB_END_TIME",
    "SLURM_JOB_EXIT_CODE",
    "SLURM_JOB_EXIT_CODE2",
    "SLURM_JOB_EXTRA",
    "SLURM_JOB_GID",
    "SLURM_JOB_GROUP",
    "SLURM_JOB_ID",
    "SLURM_JOB_LICENSES",
    "SLURM_JOB_NAME",
    "SLURM_JOB_NODELIST",
    "SLURM_JOB_NUM_NODES",
    "SLURM_JOB_OVERSUBSCRIBE",
    "SLURM_JOB_PARTITION",
    "SLURM_JOB_RESERVATION",
    "SLURM_JOB_RESTART_COUNT",
    "SLURM_JOB_START_TIME",
    "SLURM_JOB_STDERR",
    "SLURM_JOB_STDIN",
    "SLURM_JOB_STDOUT",
    "SLURM_JOB_UID",
    "SLURM_JOB_USER",
    "SLURM_JOB_WORK_DIR",
    "SLURM_SCRIPT_CONTEXT",
    "SLURM_WCKEY",
)
"""All keys of a message. The existing adapter's receiver requires each of them."""
_READ_VARIABLES = ("SLURM_JOB_ID", "SLURM_SCRIPT_CONTEXT", "SLURM_CLUSTER_NAME")


class BadMessage(AdapterError):
    """The message cannot be understood, or it must not be trusted."""


class HookMessage:
    """The part of a message that the daemon uses. `context` and `cluster` may be ''."""

    def __init__(self, job_id: int, context: str, cluster: str) -> None:
        self.job_id = job_id
        self.context = context
        self.cluster = cluster
        self.age = 0.0
        """Seconds since the hook wrote it, if that is known."""


def encode(environ: Mapping[str, str]) -> bytes:
    """Encode the message of a hook that was called with this environment.

    Only what a receiver needs is sent, because the message may cross a network unencrypted. The other keys are empty.
    """
    message = dict.fromkeys(VARIABLES, "")
    message.update((name, environ.get(name, "")[:255]) for name in _READ_VARIABLES)
    return ("{" + ", ".join(f"{quoted(name)}: {quoted(value)}" for name, value in message.items()) + "}").encode()


def decode(message: bytes) -> HookMessage:
    """Decode an unsigned message. Raises BadMessage and no other error, whatever the bytes are."""
    import json  # noqa: PLC0415 - slow to load, and hooks decode nothing

    try:
        values = json.loads(message)
    except (ValueError, RecursionError):
        raise BadMessage("the message is not JSON") from None
    if not isinstance(values, dict):
        raise BadMessage("the message is not a JSON object")
    return read_environment(values)


def read_environment(values: Mapping[str, object]) -> HookMessage:
    """Return the part of the values that the daemon uses. Raises BadMessage if SLURM_JOB_ID is missing or unusable.

    A context or cluster of an unexpected form counts as not given.
    """
    job_id = values.get("SLURM_JOB_ID")
    if not isinstance(job_id, str) or not (job_id.isascii() and job_id.isdigit()) or len(job_id) > MAX_DIGITS:
        raise BadMessage(f"SLURM_JOB_ID is not a job id: {job_id!r:.40}")
    if not 0 < int(job_id) <= MAX_JOB_ID:
        raise BadMessage(f"SLURM_JOB_ID is out of range: {job_id}")
    context = values.get("SLURM_SCRIPT_CONTEXT")
    cluster = values.get("SLURM_CLUSTER_NAME")
    return HookMessage(
        int(job_id),
        context if isinstance(context, str) and _is_context(context) else "",
        cluster if isinstance(cluster, str) and cluster.isprintable() and len(cluster) <= 64 else "",
    )


def _is_context(text: str) -> bool:
    return len(text) <= LONGEST_WORD and consists_of(text, CONTEXT)


def event_name(message: HookMessage, pid: int) -> str:
    """Return the name of the event file. The hook's process id distinguishes it from other events of the job.

    A cluster whose name cannot be part of a file name is left out. Then any daemon accepts the event.
    """
    return f"{message.job_id}.{message.context}.{nameable(message.cluster)}.{pid}"


def parse_event_name(name: str) -> HookMessage | None:
    """Parse the name of an event file. Return None for any other name."""
    parts = split_event_name(name)
    if parts is None:
        return None
    job_id, context, cluster = parts
    if len(job_id) > MAX_DIGITS or not 0 < int(job_id) <= MAX_JOB_ID:
        return None
    return HookMessage(int(job_id), context, cluster) if max(len(context), len(cluster)) <= LONGEST_WORD else None
