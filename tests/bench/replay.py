"""Runs commands as the daemon ran them, and nothing else.

    python3 replay.py FILE

FILE is JSON: a list of [words, standard input]. Prints [seconds, seconds of CPU, MB of the largest process].
"""

import json
import os
import subprocess
import sys
import tempfile
import time

ENVIRON = {**os.environ, "LC_ALL": "C", "SLURM_TIME_FORMAT": "%s"}


def run(argv: "list[str]", text: str) -> "tuple[float, float, float]":
    with tempfile.TemporaryFile() as stdin:
        stdin.write(text.encode())
        stdin.seek(0)
        began = time.perf_counter()
        process = subprocess.Popen(
            argv, stdin=stdin if text else subprocess.DEVNULL, stdout=subprocess.PIPE, env=ENVIRON
        )
        assert process.stdout is not None
        while process.stdout.read(262144):
            pass
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = status
        process.stdout.close()
    if status:
        sys.exit(f"{' '.join(argv)[:200]} ended with status {status}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main(path: str) -> None:
    with open(path, encoding="utf-8") as file:
        costs = [run(argv, text) for argv, text in json.load(file)]
    walls, cpus, peaks = zip(*costs)
    print(json.dumps([sum(walls), sum(cpus), max(peaks)]))


main(sys.argv[1])
