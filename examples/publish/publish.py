"""Publishes two events over HTTP; works with any database."""

import json
import os
import urllib.request

URL = os.environ.get("TIDINGS_URL", "http://127.0.0.1:8333") + "/api/v1/events"


def publish(key, *events):
    """Publishes all events or none and returns their ids once they are durable.

    After an error, call it again with the same key: nothing is published twice.
    """
    request = urllib.request.Request(
        URL,
        data=json.dumps(events).encode(),
        headers={
            "Authorization": "Bearer " + os.environ["SHOP_TOKEN"],
            "Content-Type": "application/json",
            "Idempotency-Key": key,
        },
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)["ids"]


created = {"event": "order.created", "resource_id": "4711", "user_id": "ann"}
paid = {"event": "order.paid", "resource_id": "4711", "resource_url": "/orders/4711"}
first = publish("order-4711", created, paid)
again = publish("order-4711", created, paid)  # a retry, as after a timeout
assert first == again
print("\n".join(first))
