"""Asks the probes again and again, as a kubelet does, and writes down each answer: one JSON line with the fields of
`records.Probe`.

A process of its own, so that it measures the converter and not a client that is busy with other things.
"""

import http.client
import json
import sys
import time
from contextlib import suppress
from itertools import cycle
from urllib.parse import urlsplit

INTERVAL = 0.02
"""Seconds between an answer and the next question."""

PATHS = ("/readyz", "/readyz", "/readyz", "/livez", "/readyz", "/readyz", "/readyz", "/v2/health/ready")


def probe(url: str) -> None:
    """Ask until somebody ends this process."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    for path in cycle(PATHS):
        asked = time.time()
        connection.request("GET", path)
        response = connection.getresponse()
        document = json.loads(response.read())
        print(json.dumps([asked, time.time(), path, response.status, document["state"]]), flush=True)
        time.sleep(INTERVAL)


if __name__ == "__main__":
    with suppress(OSError, http.client.HTTPException):  # the service has ended
        probe(sys.argv[1])
