"""Sends starts and then stops over four connections, and does nothing else.

    python3 bare_requests.py PORT STARTS STOPS BYTES_OF_A_START BYTES_OF_A_STOP

Prints [seconds, seconds of CPU].
"""

import http.client
import itertools
import json
import socket
import sys
import threading
import time

CONNECTIONS = 4
PORT, STARTS, STOPS, START_BYTES, STOP_BYTES = map(int, sys.argv[1:])
HEADERS = {"X-AUTH-TOKEN": "token", "Accept": "application/ld+json", "Content-Type": "application/json"}


def body(job_id: int, size: int) -> bytes:
    text = f'{{"jobId":{job_id},"cluster":"bare","startTime":1700000000,"text":"'
    return (text + "x" * (size - len(text) - 2) + '"}').encode()


def requests() -> "itertools.chain[tuple[str, bytes]]":
    starts = (("/api/jobs/start_job/", body(job_id, START_BYTES)) for job_id in range(STARTS))
    stops = (("/api/jobs/stop_job/", body(job_id, STOP_BYTES)) for job_id in range(STOPS))
    return itertools.chain(starts, stops)


def send(todo: "itertools.chain[tuple[str, bytes]]", lock: threading.Lock) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", PORT)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while True:
        with lock:
            path, content = next(todo, ("", b""))
        if not path:
            break
        connection.request("POST", path, content, HEADERS)
        connection.getresponse().read()
    connection.close()


def main() -> None:
    todo, lock = requests(), threading.Lock()
    threads = [threading.Thread(target=send, args=(todo, lock)) for _ in range(CONNECTIONS)]
    began, used = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps([time.perf_counter() - began, time.process_time() - used]))


main()
