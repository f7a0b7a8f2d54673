"""Prints job events as they come: python3 nats_consumer.py nats://127.0.0.1:4222 jobs (needs pip install nats-py)."""

import asyncio
import json
import re
import sys

import nats


async def main(server: str, subject: str) -> None:
    """Until it is interrupted."""
    client = await nats.connect(server)
    subscription = await client.subscribe(subject)
    async for message in subscription.messages:
        # One point of InfluxDB's line protocol: its tag `function` says what happened, its field `event` is JSON.
        point = re.search(r',function=(\w+).* event="(.*)" \d+\n\Z', message.data.decode(), re.S)
        function, event = point.groups() if point else ("unknown", "{}")
        job = json.loads(re.sub(r'\\(["\\])', r"\1", event))
        print(function, job["cluster"], job["jobId"], job.get("jobState", "running"), flush=True)


asyncio.run(main(*sys.argv[1:]))
