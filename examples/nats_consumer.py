"""Prints job events as they arrive: python3 nats_consumer.py [SERVER [SUBJECT]] (needs pip install nats-py).

SERVER may have a login, as in nats://user:password@host:4222. A message that is not a job event is printed unchanged.
"""

import asyncio
import json
import re
import sys

import nats


async def main(server: str = "nats://127.0.0.1:4222", subject: str = "jobs") -> None:
    """Print events until interrupted."""
    client = await nats.connect(server)
    subscription = await client.subscribe(subject)
    async for message in subscription.messages:
        # One point of InfluxDB's line protocol: its tag `function` says what happened, its field `event` is JSON.
        text = message.data.decode(errors="replace")
        point = re.search(r'^job,.*?function=(\w+).*? event="(.*)" \d+\n\Z', text, re.S)
        if point is None:
            print(message.subject, text, flush=True)
            continue
        job = json.loads(re.sub(r'\\(["\\])', r"\1", point[2]))
        print(point[1], job["cluster"], job["jobId"], job.get("jobState", "running"), flush=True)


asyncio.run(main(*sys.argv[1:3]))
