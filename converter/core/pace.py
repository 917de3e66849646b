"""How long nodes are known to be silent: what tells a slow node from a dead engine.

Follows the prompts that run from sound to sound, and remembers for each class of nodes the longest silence that ended
well. A silence that an error or an interrupt ended is none of a node's own pace, nor is one of a socket that missed
messages. Leaves to others: which sounds are heard (`link`), and what a longer silence means (`readiness`).

Invariant: no silence is remembered that did not happen; what is remembered shrinks only where a node of its class was
quicker, and by no more than a half in `HALF_LIFE`.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from converter.core.events import Failed, Interrupted, Released, Sound, Succeeded

FACTOR = 2.0
"""How many times the longest silence known may pass before it says anything."""

HALF_LIFE = 86400.0
"""Seconds in which half of a silence is forgotten while nodes of its class are quicker. A model that is loaded once
after a start, and then lies in memory for days, is still expected to be slow at the next start.
"""

MOST = 256
"""Classes that are remembered; the one with the shortest silence is forgotten first, since it matters least."""


class Stay(NamedTuple):
    """A prompt that runs, at a node of this class (None: at none that is known). `longest`: seconds of silence."""

    class_type: str | None
    heard_at: float
    longest: float = 0.0


class Silence(NamedTuple):
    """The longest silence of a class, as it was remembered at the moment `at`."""

    seconds: float
    at: float


class Pace(NamedTuple):
    """One engine's. Stays by prompt id, silences by class."""

    stays: Mapping[str, Stay] = MappingProxyType({})
    silences: Mapping[str, Silence] = MappingProxyType({})


def hear(state: Pace, prompt_id: str, sound: Sound, class_type: str | None, now: float) -> Pace:
    """A prompt is heard of; `class_type`: of the node at which it is from here on, as far as is known."""
    stay = state.stays.get(prompt_id, Stay(class_type, now))
    stay = stay._replace(heard_at=now, longest=max(stay.longest, now - stay.heard_at))
    if isinstance(sound, Interrupted) or (isinstance(sound, Failed) and not sound.midway):
        return leave(state, prompt_id)
    if isinstance(sound, Succeeded | Released):
        return leave(_learn(state, stay), prompt_id)
    if class_type != stay.class_type:
        state, stay = _learn(state, stay), Stay(class_type, now)
    return state._replace(stays={**state.stays, prompt_id: stay})


def leave(state: Pace, prompt_id: str) -> Pace:
    """Nothing more will be heard of the prompt."""
    if prompt_id not in state.stays:
        return state
    return state._replace(stays={key: stay for key, stay in state.stays.items() if key != prompt_id})


def explain(state: Pace, prompts: Iterable[str]) -> float:
    """Seconds of silence of these running prompts that their nodes' own pace explains; 0 if nothing is known."""
    stays = [state.stays[prompt_id] for prompt_id in prompts if prompt_id in state.stays]
    classes = {stay.class_type for stay in stays}
    known = [silence.seconds for class_type, silence in state.silences.items() if class_type in classes]
    return FACTOR * max([*known, *(stay.longest for stay in stays)], default=0.0)


def _learn(state: Pace, stay: Stay) -> Pace:
    """The stay has ended well, at the moment when it was last heard of."""
    if stay.class_type is None:
        return state
    known = state.silences.get(stay.class_type, Silence(0.0, stay.heard_at))
    faded = known.seconds * 0.5 ** ((stay.heard_at - known.at) / HALF_LIFE)
    silences = {**state.silences, stay.class_type: Silence(max(stay.longest, faded), stay.heard_at)}
    if len(silences) > MOST:
        del silences[min(silences, key=lambda class_type: silences[class_type].seconds)]
    return state._replace(silences=silences)
