"""Asks a probe again and again, as a kubelet does, and prints how long each answer took, in seconds, as JSON.

A process of its own, so that it measures the converter and not a client that is busy with other things.
"""

import http.client
import json
import sys
from time import perf_counter, sleep
from urllib.parse import urlsplit

INTERVAL = 0.01
"""Seconds between an answer and the next question."""


def probe(url: str, seconds: float) -> list[float]:
    """Ask for so long, over one connection."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    delays = []
    end = perf_counter() + seconds
    while (asked := perf_counter()) < end:
        connection.request("GET", parts.path)
        connection.getresponse().read()
        delays.append(perf_counter() - asked)
        sleep(INTERVAL)
    connection.close()
    return delays


if __name__ == "__main__":
    print(json.dumps(probe(sys.argv[1], float(sys.argv[2]))))
