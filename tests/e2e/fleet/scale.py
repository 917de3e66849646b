"""How large the fleet's tests are: short in `make test`, and as `deploy/` has it, with figures, in `make fleet`."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Scale:
    """Times are in seconds.

    full: engines are the embedded one, nothing in the load balancers is changed, and figures are judged. Else engines
    are scripted, of ComfyUI's protocol, and only what does not depend on speed is judged. job: what a job takes.
    capacity: of a replica that is overloaded. load: how long that lasts. silence: in a stream. times, patience: what
    stands in for times of the load balancers, the second where their patience is tried. flags: of all replicas.
    """

    full: bool
    job: float
    capacity: int
    load: float
    silence: float
    times: Mapping[str, str] = field(default_factory=dict)
    patience: Mapping[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


SHORT = Scale(
    full=False,
    job=0.1,
    capacity=4,
    load=3.0,
    silence=4.0,
    times={"inter 2s": "inter 200ms", "interval: 2s": "interval: 0.2s"},
    patience={"100s": "3s"},
    flags=("--sse-keepalive", "0.4", "--drain-delay", "0.6", "--staleness", "60"),
)

FULL = Scale(full=True, job=0.5, capacity=16, load=60.0, silence=60.0)

SCALE = FULL if os.environ.get("FLEET") == "full" else SHORT
