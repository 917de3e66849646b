"""The embedded engine as chaos runs it: a log of what it ran, and no imports that only models need.

    python -m tests.e2e.chaos.engine --port RELAY --behind PORT --log FILE ...

`--port` is where the converter is to look for the engine, which is a relay; `--behind` is where the engine listens. All
other flags are the engine's. Without torch an engine that was killed is back in half a second of processor time.
"""

import argparse
import logging
import sys

from engine.__main__ import main
from engine.models import Models

FORMAT = "%(created).6f %(process)d %(message)s"


def run() -> int:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--port")
    parser.add_argument("--behind", required=True)
    parser.add_argument("--log", required=True)
    options, rest = parser.parse_known_args()
    logging.basicConfig(filename=options.log, level=logging.INFO, format=FORMAT)
    logging.info("engine starts")
    Models.warm_up = lambda self: None  # type: ignore[method-assign]
    return main(["--port", options.behind, *rest])


if __name__ == "__main__":
    sys.exit(run())
