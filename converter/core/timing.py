"""How long a job took, in the words of those who ask: the parts of a request, as a sum and as a header.

Leaves measuring to `job`. Invariant: no part is negative.
"""

from collections.abc import Mapping

PARTS = ("waiting", "staging", "queued", "executing", "collecting")
"""The parts that are measured, in their order."""


def overhead(times: Mapping[str, float], total: float) -> float:
    """The converter's own part of `total` seconds: what is left without waiting, the engine's queue and execution.

    `times` are seconds by the names in PARTS.
    """
    foreign = times["waiting"] + times["staging"] + times["queued"] + times["executing"]
    return max(0.0, total - foreign)


def server_timing(total: float, times: Mapping[str, float] | None = None) -> str:
    """The value of `Server-Timing` (W3C Server Timing, section 3): names and milliseconds, `total` last.

    `times`: of the job that the request waited for. All arguments are in seconds.
    """
    shown = {} if times is None else {**{part: times[part] for part in PARTS}, "overhead": overhead(times, total)}
    return ", ".join(f"{name};dur={1000 * seconds:.1f}" for name, seconds in {**shown, "total": total}.items())
