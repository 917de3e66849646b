"""Workflows that kill engines: who is refused for a while, so that one caller can't take a replica down for all.

Counts the kills of workflows that ran alone; only those are surely to blame, neighbours and victims of an outside kill
are not. Invariant: a workflow is refused only after `KILLS` kills while alone, within `SECONDS` of the last of them.
"""

from dataclasses import dataclass, field, replace

KILLS = 2
"""Kills while alone that prove a workflow guilty."""

SECONDS = 600.0
"""How long a kill is remembered."""

MOST = 1000
"""Workflows that are remembered; the one that killed least recently is forgotten first."""


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Kills by fingerprint: (count, moment of the last), in the order of the last."""

    kills: dict[str, tuple[int, float]] = field(default_factory=dict)


def blame(state: Quarantine, fingerprint: str, now: float) -> Quarantine:
    """A workflow has killed the engine while it was alone."""
    count = state.kills[fingerprint][0] if _remembered(state, fingerprint, now) else 0
    kills = {key: kill for key, kill in state.kills.items() if key != fingerprint and now - kill[1] < SECONDS}
    for oldest in list(kills)[: max(0, len(kills) + 1 - MOST)]:
        del kills[oldest]
    return replace(state, kills={**kills, fingerprint: (count + 1, now)})


def seconds_left(state: Quarantine, fingerprint: str, now: float) -> float:
    """For how long the workflow is refused; 0 if it is not."""
    if not _remembered(state, fingerprint, now) or state.kills[fingerprint][0] < KILLS:
        return 0.0
    return state.kills[fingerprint][1] + SECONDS - now


def _remembered(state: Quarantine, fingerprint: str, now: float) -> bool:
    return fingerprint in state.kills and now - state.kills[fingerprint][1] < SECONDS
