"""A lean stand-in cc-backend in a process of its own: it takes whatever comes and notes when.

    python3 backend_program.py CLUSTER PORT SECONDS_PER_START SECONDS_PER_STOP

It prints its port; 0 chooses a free one. Starts and stops that take time are dealt with one after the other, as the
real one does. Under /bench/ it tells what came: see `backend`.
"""

import json
import re
import signal
import socket
import sys
import threading
import time
from urllib.parse import parse_qs

CLUSTER, PORT = sys.argv[1], int(sys.argv[2])
SECONDS = {"start": float(sys.argv[3]), "stop": float(sys.argv[4])}
JOB_ID, START_TIME = re.compile(rb'"jobId": ?(\d+)'), re.compile(rb'"startTime": ?(\d+)')
START, STOP, NODES = "start", "stop", "nodes"


class Knowledge:
    """What was told. `log` has (Unix time, what, job id); the threads append to it without a lock."""

    def __init__(self) -> None:
        self.log: list[tuple[float, str, int]] = []
        self.running: dict[int, int] = {}
        self.bytes = {START: 0, STOP: 0, NODES: 0}
        self.one_at_a_time = threading.Lock()

    def tell(self, kind: str, body: bytes) -> None:
        found, began = JOB_ID.search(body), START_TIME.search(body)
        job_id = int(found[1]) if found else 0
        if SECONDS.get(kind):
            with self.one_at_a_time:
                time.sleep(SECONDS[kind])
        if kind == START:
            self.running[job_id] = int(began[1]) if began else 0
        elif kind == STOP:
            self.running.pop(job_id, None)
        self.bytes[kind] += len(body)
        self.log.append((time.time(), kind, job_id))


KNOWN = Knowledge()
TOLD = {"/api/jobs/start_job/": START, "/api/jobs/stop_job/": STOP, "/api/nodestate/": NODES}


def answer(method: str, target: str, body: bytes) -> "tuple[int, object]":
    path, _, query = target.partition("?")
    words = {name: values[0] for name, values in parse_qs(query).items()}
    if method == "POST" and path in TOLD:
        KNOWN.tell(TOLD[path], body)
        return (201 if TOLD[path] == START else 200), {"msg": "success"}
    if path == "/api/clusters/":
        return 200, {"clusters": [{"name": CLUSTER, "metricConfig": [], "subClusters": []}]}
    if path == "/api/jobs/":
        return 200, list_running(int(words.get("page", "1")), int(words.get("items-per-page", "25")))
    if path == "/bench/log":
        return 200, {"log": KNOWN.log[int(words["since"]) :], "bytes": KNOWN.bytes, "running": len(KNOWN.running)}
    if path == "/bench/know":
        first, count, start = (int(words[name]) for name in ("first", "count", "start"))
        KNOWN.running.update(dict.fromkeys(range(first, first + count), start))
        return 200, {}
    return 404, {"error": f"the stand-in does not know {path}"}


def list_running(page: int, size: int) -> "dict[str, object]":
    """A page of jobs with the fields that cc-backend prints."""
    rows = list(KNOWN.running.items())[(page - 1) * size : page * size]
    return {"jobs": [row(job_id, start) for job_id, start in rows], "items": size, "page": page}


def row(job_id: int, start: int) -> "dict[str, object]":
    return {
        "cluster": CLUSTER,
        "subCluster": "main",
        "partition": "main",
        "project": "proj",
        "user": "alice",
        "shared": "multi_user",
        "jobState": "running",
        "tags": [],
        "resources": [{"hostname": f"n{job_id % 100:05}", "hwthreads": [job_id % 128]}],
        "energyFootprint": None,
        "footprint": {"cpu_load_avg": 0, "flops_any_avg": 0, "mem_bw_avg": 0, "mem_used_max": 0},
        "metaData": None,
        "concurrentJobs": {"items": None, "count": 0},
        "energy": 0,
        "walltime": 86400,
        "jobId": job_id,
        "duration": 900,
        "smt": 1,
        "monitoringStatus": 1,
        "numHwthreads": 1,
        "numNodes": 1,
        "statistics": None,
        "id": job_id,
        "startTime": start,
    }


def serve(connection: socket.socket) -> None:
    """One client, for as long as it keeps the connection."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    rest = b""
    while True:
        while b"\r\n\r\n" not in rest:
            piece = connection.recv(65536)
            if not piece:
                return
            rest += piece
        head, _, rest = rest.partition(b"\r\n\r\n")
        found = re.search(rb"(?i)content-length: *(\d+)", head)
        length = int(found[1]) if found else 0
        while len(rest) < length:
            piece = connection.recv(65536)
            if not piece:
                return
            rest += piece
        method, target, _ = head.split(b"\r\n", 1)[0].decode("ascii").split(" ")
        status, said = answer(method, target, rest[:length])
        rest = rest[length:]
        body = json.dumps(said).encode()
        connection.sendall(
            b"HTTP/1.1 %d OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (status, len(body), body)
        )


def serve_quietly(connection: socket.socket) -> None:
    try:
        serve(connection)
    except ConnectionError:
        pass  # it went away
    finally:
        connection.close()


def main() -> None:
    with socket.create_server(("127.0.0.1", PORT), backlog=64) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve_quietly, args=(connection,), daemon=True).start()


signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it ends it
main()
