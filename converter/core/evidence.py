"""Weighs what is learned about one prompt until it is certain what became of it.

Sounds say when to look; a sight (the queue first, then the history) says what is. A history record, or its proven
absence, settles the matter. One fast path: a prompt that one unbroken socket followed from `execution_start` to
`execution_success`, with no error in between, is settled by its own `executed` events.

Leaves to others: doing the looking, and what a verdict means for the job. Invariant: the verdict is reached once,
never changes, and never contradicts what a look would have said; every state without a verdict has either a look
under way, an answer outstanding, or a moment (`wake_at`) at which it looks again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from converter.core.events import (
    Began,
    Entered,
    Executed,
    Failed,
    Interrupted,
    QueueView,
    Record,
    Released,
    Sight,
    Sound,
    Succeeded,
)

SILENCE = 5.0
"""Seconds without any news of the prompt that cause a look."""

ABSENCE = 1.5
"""Seconds over which a prompt must stay in neither queue nor history before it counts as gone."""

LATENESS = 5.0
"""The same for a prompt whose end was heard: its record is only late (ComfyUI writes it after the event)."""

HEARING = 0.1
"""Seconds that a message about a prompt that has left the queue may still be under way on a healthy socket."""

FIRST_RETRY, LAST_RETRY = 0.03, 1.0
"""Seconds between looks that did not settle the matter: doubling from the first to the last."""


@dataclass(frozen=True, slots=True)
class Finished:
    """Every wanted node ran or was cached. `outputs`: node id to ui. `requested` is known from history only."""

    outputs: Mapping[str, Any]
    requested: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Broke:
    """A node raised, or an output was blocked with a message."""

    failure: Failed


@dataclass(frozen=True, slots=True)
class Stopped:
    """The prompt was interrupted."""


@dataclass(frozen=True, slots=True)
class Vanished:
    """In neither queue nor history. `known`: the engine had surely accepted it; `begun`: it had begun to run."""

    known: bool
    begun: bool


Verdict = Finished | Broke | Stopped | Vanished


@dataclass(frozen=True, slots=True)
class Accepted:
    """`POST /prompt` was answered 200 without node errors."""


@dataclass(frozen=True, slots=True)
class Unanswered:
    """`POST /prompt` was sent and got no usable answer: the engine may have the prompt or not."""


@dataclass(frozen=True, slots=True)
class SocketLost:
    """The websocket under which the prompt was submitted is gone, or was found deaf."""


@dataclass(frozen=True, slots=True)
class SocketBack:
    """A new websocket is open; it will say nothing about prompts submitted under another client id."""


@dataclass(frozen=True, slots=True)
class Unseen:
    """A look failed: the engine did not answer."""


@dataclass(frozen=True, slots=True)
class Wake:
    """`wake_at` has come."""


@dataclass(frozen=True, slots=True)
class EngineGone:
    """The engine that had the prompt is gone with all that it knew."""


News = Sound | Accepted | Unanswered | SocketLost | SocketBack | Sight | Unseen | Wake | EngineGone | QueueView


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of one prompt. Times are moments of the shell's monotonic clock, in seconds."""

    prompt_id: str
    submitted_at: float
    unbroken: bool = True
    answered: bool = False
    known: bool = False
    begun: bool = False
    running: bool = False
    ended: bool = False
    succeeded: bool = False
    failure: Failed | None = None
    doubtful: bool = False
    executed: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    deaf: bool = False
    looking: bool = False
    look_again: bool = False
    retry: float = FIRST_RETRY
    absent_since: float | None = None
    wake_at: float | None = None
    verdict: Verdict | None = None


def submit(prompt_id: str, now: float, *, unbroken: bool) -> Evidence:
    """The evidence of a prompt that is just being submitted; `unbroken`: an open socket listens for it."""
    return Evidence(prompt_id, submitted_at=now, unbroken=unbroken)


def step(state: Evidence, news: News, now: float) -> tuple[Evidence, bool]:
    """Weigh one piece of news; the flag says that a look is to be begun now."""
    if state.verdict is not None:
        return state, False
    match news:
        case Accepted():
            state = replace(state, answered=True, known=True, wake_at=now + SILENCE)
            return _settle_unheard(state, now)
        case Unanswered():
            return _look(replace(state, answered=True), now)
        case SocketLost():
            return _look(replace(state, unbroken=False), now)
        case SocketBack():
            return _look(replace(state, unbroken=False), now)
        case Sight():
            return _weigh(replace(state, looking=False), news, now)
        case Unseen():
            return _retry(replace(state, looking=False), now)
        case Wake():
            return _look(state, now) if state.wake_at is not None and now >= state.wake_at else (state, False)
        case EngineGone():
            return _conclude(state, Vanished(known=state.known, begun=state.begun)), False
        case QueueView():
            return _compare(state, news, now)
        case _:
            return _hear(state, news, now)


def _hear(state: Evidence, sound: Sound, now: float) -> tuple[Evidence, bool]:
    state = replace(state, known=True, wake_at=now + SILENCE, absent_since=None)
    match sound:
        case Began():
            state = replace(state, begun=True, running=True)
        case Entered():
            state = replace(state, running=True)
        case Executed(node_id, output):
            if output is not None:
                state = replace(state, executed=(*state.executed, (node_id, output)))
        case Failed():
            state = replace(state, doubtful=True, failure=sound, ended=state.ended or not sound.midway)
        case Interrupted():
            state = replace(state, doubtful=True, ended=True)
        case Succeeded():
            state = replace(state, ended=True, succeeded=True)
            return _settle_unheard(state, now)
        case Released():
            return _look(replace(state, ended=True), now)
    if state.ended and state.answered:
        state = replace(state, wake_at=now + state.retry)
    return state, False


def _settle_unheard(state: Evidence, now: float) -> tuple[Evidence, bool]:
    """The fast path, taken only if nothing at all is in doubt; else the end that was heard is looked at."""
    certain = state.unbroken and state.answered and state.known and not state.doubtful
    if certain and state.begun and state.succeeded and state.executed:
        return _conclude(state, Finished(dict(state.executed))), False
    if state.answered and state.ended:
        return replace(state, wake_at=now + state.retry), False
    return state, False


def _compare(state: Evidence, view: QueueView, now: float) -> tuple[Evidence, bool]:
    """A read of the whole queue, made for its own purposes: absence there is a reason to look."""
    if not state.answered or state.looking or view.asked_at < state.submitted_at:
        return state, False
    if state.prompt_id in view.running:
        return replace(state, known=True, running=True, absent_since=None), False
    if state.prompt_id in view.pending:
        return replace(state, known=True, absent_since=None), False
    soon = now + HEARING
    wake_at = soon if state.wake_at is None else min(soon, state.wake_at)
    return replace(state, wake_at=wake_at), False


def _look(state: Evidence, now: float) -> tuple[Evidence, bool]:
    if not state.answered:
        return state, False
    if state.looking:
        return replace(state, look_again=True), False
    return replace(state, looking=True, look_again=False, wake_at=None), True


def _weigh(state: Evidence, sight: Sight, now: float) -> tuple[Evidence, bool]:
    if sight.record is not None:
        return _conclude(state, _judge(sight.record, state.failure)), False
    if not sight.absent:
        state = replace(state, known=True, running=state.running or sight.running, absent_since=None)
        return _retry(state, now) if state.ended or state.look_again else _rest(state, now)
    since = sight.asked_at if state.absent_since is None else state.absent_since
    patience = LATENESS if state.ended else ABSENCE
    if now - since >= patience:
        return _conclude(state, Vanished(known=state.known, begun=state.begun)), False
    return _retry(replace(state, absent_since=since), now)


def _judge(record: Record, heard: Failed | None) -> Verdict:
    """What a record says. An error beats a status "success": ComfyUI writes that after a cycle made by expansion."""
    if record.interrupted:
        return Stopped()
    failure = record.failure or heard
    if failure is not None:
        return Broke(failure)
    if not record.success:
        return Broke(Failed(None, None, "the engine recorded an error without saying which", ""))
    return Finished(record.outputs, record.requested)


def _retry(state: Evidence, now: float) -> tuple[Evidence, bool]:
    if state.look_again:
        return _look(state, now)
    later = min(state.retry * 2, LAST_RETRY)
    return replace(state, wake_at=now + state.retry, retry=later), False


def _rest(state: Evidence, now: float) -> tuple[Evidence, bool]:
    return replace(state, wake_at=now + SILENCE, retry=FIRST_RETRY), False


def _conclude(state: Evidence, verdict: Verdict) -> Evidence:
    """A verdict that the socket should have told and did not says that the socket is deaf."""
    deaf = state.unbroken and not state.ended and not isinstance(verdict, Vanished)
    return replace(state, verdict=verdict, wake_at=None, looking=False, look_again=False, deaf=deaf)
