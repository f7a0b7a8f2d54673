"""A fixed piece of Python work: what it costs tells how fast the machine is while something else is measured.

    python3 reference_program.py ROUNDS

Prints the seconds of CPU that one piece takes, the least of so many rounds. The piece never changes: what was measured
before could not be compared with what is measured after that.
"""

import json
import re
import sys
import time

RECORDS = 100
RECORD = '{"job_id": %d, "state": ["RUNNING"], "nodes": "n%05d,n%05d", "time": {"start": %d, "end": %d}, "text": "%s"}'
LINE = re.compile(r"(\d+)\|([A-Z]+)\|(\d+)\|(\d+)\|(n\d+)")


def piece() -> int:
    """What the program mostly does: texts are taken apart, put into objects, looked up and written again."""
    texts = [RECORD % (number, number, number + 1, number, 2 * number, "x" * 500) for number in range(RECORDS)]
    jobs = [json.loads(text) for text in texts]
    lines = [f"{job['job_id']}|{job['state'][0]}|{job['time']['start']}|{job['time']['end']}|n{1}" for job in jobs]
    known = {}
    for _ in range(20):
        for line in lines:
            found = LINE.fullmatch(line)
            if found:
                known[int(found[1]), int(found[3])] = found[5]
    written = [
        json.dumps({"jobId": job_id, "startTime": start, "node": node}) for (job_id, start), node in known.items()
    ]
    return sum(map(len, written))


def main(rounds: int) -> None:
    took = []
    for _ in range(rounds):
        before = time.process_time()
        piece()
        took.append(time.process_time() - before)
    print(min(took))


main(int(sys.argv[1]))
