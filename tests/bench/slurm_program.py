"""The part of a big stand-in Slurm that has to think: details of jobs, and scontrol's commands on standard input.

    python3 slurm_program.py FOLDER squeue|scontrol ARGUMENT ...

Only what the interpreter has loaded anyhow is imported. The folder is laid out by `big_cluster`.
"""

import os
import sys

FOLDER = sys.argv[1]


def read(name: str) -> str:
    with open(os.path.join(FOLDER, name), encoding="utf-8") as file:
        return file.read()


FIRST, COUNT, NODES, CORES, START, SCRIPTS = map(int, read("base").split())


def find(job_id: int) -> "tuple[str, int, int] | None":
    """State, start and end; None when Slurm knows no such job."""
    try:
        state, start, end = read(f"jobs/{job_id}").split()
        return state, int(start), int(end)
    except OSError:
        return ("RUNNING", START, START + 86400) if FIRST <= job_id < FIRST + COUNT else None


def fill(template: str, job_id: int, state: str, start: int, end: int) -> str:
    node, core = job_id % NODES, job_id // NODES % CORES
    socket, core = divmod(core, CORES // 2)
    words = '",\n        "'.join(state.split("+"))
    text = template.replace("@id@", str(job_id)).replace("@state@", words).replace("@node@", f"n{node:05}")
    text = text.replace("@start@", str(start)).replace("@end@", str(end))
    text = text.replace("@batch@", "true" if job_id < FIRST + SCRIPTS else "false")
    return text.replace("@socket@", str(socket)).replace("@core@", str(core))


def print_details(job_ids: "list[int]") -> None:
    head, template, tail = read("job.json").split("@@@")
    found = [(job_id, find(job_id)) for job_id in job_ids]
    jobs = [fill(template, job_id, *job) for job_id, job in found if job is not None]
    sys.stdout.write(head + ",\n".join(jobs) + tail)


def print_all_texts() -> None:
    template = read("job.txt")
    changed = [int(name) for name in os.listdir(os.path.join(FOLDER, "jobs"))]
    for job_id in [*range(FIRST, FIRST + COUNT), *(job_id for job_id in changed if job_id >= FIRST + COUNT)]:
        job = find(job_id)
        sys.stdout.write(fill(template, job_id, *job).rstrip() + "\n\n" if job else "")


def obey_input() -> None:
    template = read("job.txt")
    for line in sys.stdin:
        sys.stdout.write(f"scontrol: {line}")
        words = line.split()
        if words[:2] == ["show", "hostnames"]:
            print(words[2])
        elif words[:2] == ["show", "job"]:
            print_text(template, int(words[2]))
        elif words[:2] == ["write", "batch_script"]:
            write_script(int(words[2]), words[3])
        else:
            sys.exit(f"the stand-in scontrol does not know: {line}")
    print("scontrol: ")


def print_text(template: str, job_id: int) -> bool:
    """Whether there is such a job."""
    job = find(job_id)
    if job is None:
        print("slurm_load_jobs error: Invalid job id specified", file=sys.stderr)
        return False
    print(fill(template, job_id, *job))
    return True


def write_script(job_id: int, path: str) -> None:
    if not FIRST <= job_id < FIRST + SCRIPTS:
        print("job script retrieval failed: Job script not specified", file=sys.stderr)
        return
    script = f"#!/bin/sh\n# job {job_id}\n" + "srun hostname\n" * 70
    if path == "-":
        sys.stdout.write(script)
        return
    with open(path, "w", encoding="utf-8") as file:
        file.write(script)
    print(f"batch script for job {job_id} written to {path}")


def main(argv: "list[str]") -> None:
    words = [word for word in argv[1:] if word not in ("-a", "-t", "all", "--json=v0.0.40")]
    if argv == ["scontrol"]:
        obey_input()
    elif argv[:3] == ["scontrol", "show", "job"] and len(argv) == 4:
        sys.exit(0 if print_text(read("job.txt"), int(argv[3])) else 1)
    elif words == ["--all", "show", "job"]:
        print_all_texts()
    elif len(words) == 2 and words[0] == "-j":
        print_details([int(word) for word in words[1].split(",")])
    elif len(words) == 3 and words[:2] == ["show", "job"]:
        print_details([int(words[2])])
    else:
        sys.exit(f"the stand-in does not know: {' '.join(argv)}")


main(sys.argv[2:])
