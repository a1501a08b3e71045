# Prints every message of a queue as one line of JSON, in the queue's order, and leaves them there.
import base64, json, sys
import pika

PROPERTIES = [
    "content_type", "content_encoding", "delivery_mode", "priority", "correlation_id", "reply_to", "expiration",
    "message_id", "timestamp", "type", "user_id", "app_id", "cluster_id",
]

port, queue = int(sys.argv[1]), sys.argv[2]
connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port))
channel = connection.channel()
count = channel.queue_declare(queue, passive=True).method.message_count
last = None
if count:
    for method, properties, body in channel.consume(queue):
        present = {name: getattr(properties, name) for name in PROPERTIES}
        print(json.dumps({
            "body": base64.b64encode(body).decode(),
            "properties": {name: value for name, value in present.items() if value is not None},
            "headers": properties.headers or {},
        }))
        last = method.delivery_tag
        count -= 1
        if count == 0:
            break
    channel.cancel()
    channel.basic_nack(last, multiple=True, requeue=True)
    # Answered only after the queue has them back.
    channel.queue_declare(queue, passive=True)
connection.close()
