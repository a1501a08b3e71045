"""Reads what a NATS server has, with a client that is not ours, and prints one JSON document a message.

nats_reader.py URL stream NAME       everything that is in the stream now, then ends
nats_reader.py URL subscribe SUBJECT what is published from now on; the first line is {"ready": true}
"""

import asyncio
import base64
import json
import sys

import nats


def show(message):
    document = {
        "subject": message.subject,
        "headers": dict(message.headers or {}),
        "payload": base64.b64encode(message.data).decode(),
    }
    print(json.dumps(document), flush=True)


async def stream(client, name):
    manager = client.jetstream()
    info = await manager.stream_info(name)
    left = info.state.messages
    if left == 0:
        return
    subscription = await manager.subscribe(info.config.subjects[0], stream=name, ordered_consumer=True)
    while left > 0:
        show(await subscription.next_msg(timeout=20))
        left -= 1


async def subscribe(client, subject):
    subscription = await client.subscribe(subject, pending_msgs_limit=-1, pending_bytes_limit=-1)
    await client.flush()
    print(json.dumps({"ready": True}), flush=True)
    async for message in subscription.messages:
        show(message)


async def main():
    url, mode, name = sys.argv[1:]
    client = await nats.connect(url)
    await {"stream": stream, "subscribe": subscribe}[mode](client, name)
    await client.close()


asyncio.run(main())
