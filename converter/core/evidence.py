"""Weighs what is learned about one prompt until it is certain what became of it.

Sounds say when to look; a sight (the queue first, then the history) says what is. A history record, or its proven
absence, settles the matter. One fast path: a prompt that one unbroken socket followed from `execution_start` to
`execution_success`, with no error in between, is settled by its own `executed` events.

Leaves to others: doing the looking, and what a verdict means for the job. Invariant: the verdict is reached once,
never changes, and never contradicts what a look would have said; every state without a verdict has either a look
under way, an answer outstanding, or a moment (`wake_at`) at which it looks again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

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
"""Seconds over which a prompt must stay in neither queue nor history before it counts as gone.

They begin with the answer to one look and end with the beginning of another: a single look that an engine at a
standstill answers late proves nothing.
"""

LATENESS = 5.0
"""The same for a prompt whose end was heard: its record is only late (ComfyUI writes it after the event)."""

DELIVERY = 5.0
"""The same for a submission that was not answered, and of which nothing has been seen.

By then its body is with the engine as a whole or never will be, since the client has given its connection up.
What is left is ComfyUI's own work: it queues a prompt in the handler that has read and validated it, on the loop that
answers looks. So this bounds how long one validation may let others go first (only custom nodes with checks that wait
for something do); a prompt that appears later still would run beside the second submission.
"""

HEARING = 0.1
"""Seconds that a message about a prompt that has left the queue may still be under way on a healthy socket."""

FIRST_RETRY, LAST_RETRY = 0.03, 1.0
"""Seconds between looks that did not settle the matter: doubling from the first to the last.

So often is looked, too, where no socket tells of a prompt that waits or runs; its end is then noticed late by no more
than it has run already.
"""


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
    """A look failed. `unreachable`: nobody listens where the engine should; else it may only be slow, or at fault."""

    unreachable: bool = False


@dataclass(frozen=True, slots=True)
class Wake:
    """`wake_at` has come."""


@dataclass(frozen=True, slots=True)
class EngineGone:
    """The engine has ended or was found to be another one, which knows nothing of what was given to the one before.

    A prompt may have reached the new one already, before anybody noticed; so this is looked at, too. Not so if its
    process has `ended` and there is no other yet.
    """

    ended: bool = False


News = Sound | Accepted | Unanswered | SocketLost | SocketBack | Sight | Unseen | Wake | EngineGone | QueueView


class Evidence(NamedTuple):
    """What is known of one prompt. Times are moments of the shell's monotonic clock, in seconds.

    unbroken: one socket has listened since before the submission. wanted: output nodes that must be heard of. answered:
    there will be no more news of `POST /prompt`; accepted: it said yes. seen_at: the last moment when the engine had
    the prompt for sure; gone: that engine is said to be gone. begun: its start was heard; running: that, or it was seen
    running. ended, succeeded, failure: what was heard of its end; doubtful: no plain success. absent_since: when a look
    first found nothing. missed_at: when it was first seen to have left the queue in silence.
    """

    prompt_id: str
    submitted_at: float
    unbroken: bool = True
    wanted: frozenset[str] = frozenset()
    answered: bool = False
    accepted: bool = False
    seen_at: float | None = None
    gone: bool = False
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
    missed_at: float | None = None
    wake_at: float | None = None
    verdict: Verdict | None = None

    @property
    def known(self) -> bool:
        """The engine surely has or had the prompt."""
        return self.seen_at is not None


def submit(prompt_id: str, now: float, *, unbroken: bool, wanted: frozenset[str] = frozenset()) -> Evidence:
    """The evidence of a prompt that is just being submitted.

    `unbroken`: an open socket listens for it. `wanted`: output nodes without which a success is in doubt.
    """
    return Evidence(prompt_id, submitted_at=now, unbroken=unbroken, wanted=wanted)


def step(state: Evidence, news: News, now: float) -> tuple[Evidence, bool]:
    """Weigh one piece of news; the flag says that a look is to be begun now."""
    if state.verdict is not None:
        return state, False
    match news:
        case Accepted():
            if state.answered:
                return state, False
            wake_at = now + (SILENCE if state.unbroken else state.retry)
            state = state._replace(answered=True, accepted=True, seen_at=now, wake_at=wake_at)
            return _look(state, now) if state.gone else _settle_unheard(state, now)
        case Unanswered():
            return (state, False) if state.answered else _look(state._replace(answered=True), now)
        case SocketLost() | SocketBack():
            return _look(state._replace(unbroken=False), now) if state.unbroken else (state, False)
        case Sight() if state.looking:
            return _weigh(state._replace(looking=False), news, now)
        case Unseen(unreachable) if state.looking:
            lost = unreachable and state.gone and state.known
            return (_vanish(state, now), False) if lost else _retry(state._replace(looking=False), now)
        case Wake():
            return _look(state, now) if state.wake_at is not None and now >= state.wake_at else (state, False)
        case EngineGone(ended):
            state = state._replace(gone=True, unbroken=False)
            return (_vanish(state, now), False) if ended and state.answered else _look(state, now)
        case QueueView():
            return _compare(state, news, now)
        case Sight() | Unseen():
            return state, False
        case _:
            return _hear(state, news, now)


def _hear(state: Evidence, sound: Sound, now: float) -> tuple[Evidence, bool]:
    wake_at = now + SILENCE if state.unbroken or state.wake_at is None else state.wake_at
    state = state._replace(seen_at=now, absent_since=None, missed_at=None)
    state = state._replace(wake_at=wake_at if state.answered else None)
    match sound:
        case Began():
            state = state._replace(begun=True, running=True)
        case Entered():
            state = state._replace(running=True)
        case Executed(node_id, output):
            if output is not None:
                state = state._replace(executed=(*state.executed, (node_id, output)))
        case Failed():
            state = state._replace(doubtful=True, failure=sound, ended=state.ended or not sound.midway)
        case Interrupted():
            state = state._replace(doubtful=True, ended=True)
        case Succeeded():
            state = state._replace(ended=True, succeeded=True)
            return _settle_unheard(state, now)
        case Released():
            return _look(state._replace(ended=True), now)
    if state.ended and state.answered:
        state = state._replace(wake_at=now + state.retry)
    return state, False


def _settle_unheard(state: Evidence, now: float) -> tuple[Evidence, bool]:
    """The fast path, taken only if nothing at all is in doubt; else the end that was heard is looked at."""
    certain = state.unbroken and state.accepted and not state.doubtful
    if certain and state.begun and state.succeeded and state.executed:
        outputs = dict(state.executed)
        if state.wanted <= outputs.keys():
            return _conclude(state, Finished(outputs), now), False
    if state.answered and state.ended:
        return state._replace(wake_at=now + state.retry), False
    return state, False


def _compare(state: Evidence, view: QueueView, now: float) -> tuple[Evidence, bool]:
    """A read of the whole queue, made for its own purposes: absence there is a reason to look."""
    since = state.submitted_at if state.seen_at is None else state.seen_at
    if not state.answered or state.looking or view.asked_at < since:
        return state, False
    running = state.prompt_id in view.running
    if running or state.prompt_id in view.pending:
        state = _see(state, view.asked_at, running=running)
        if not state.unbroken and state.wake_at is not None:
            state = state._replace(wake_at=min(state.wake_at, now + state.retry))
        return state, False
    missed_at = now if state.missed_at is None else state.missed_at
    soon = now + HEARING
    wake_at = soon if state.wake_at is None else min(soon, state.wake_at)
    return state._replace(missed_at=missed_at, wake_at=wake_at), False


def _see(state: Evidence, moment: float, *, running: bool) -> Evidence:
    """The prompt was in the queue, at this moment or after."""
    seen_at = moment if state.seen_at is None else max(moment, state.seen_at)
    retry = FIRST_RETRY if running and not state.running else state.retry
    running = running or state.running
    return state._replace(seen_at=seen_at, running=running, absent_since=None, missed_at=None, retry=retry)


def _look(state: Evidence, now: float) -> tuple[Evidence, bool]:
    if not state.answered:
        return state._replace(wake_at=None), False
    if state.looking:
        return state._replace(look_again=True, wake_at=None), False
    return state._replace(looking=True, look_again=False, wake_at=None), True


def _weigh(state: Evidence, sight: Sight, now: float) -> tuple[Evidence, bool]:
    if sight.record is not None:
        return _conclude(state, _judge(sight.record, state.failure), now), False
    if not sight.absent:
        state = _see(state, sight.asked_at, running=sight.running)
        state = state._replace(gone=state.gone and state.look_again)
        waits = state.unbroken and not state.ended and not state.look_again
        return _rest(state, now) if waits else _retry(state, now)
    if not misses(state, sight):
        return _retry(state, now)
    since = now if state.absent_since is None else state.absent_since
    if sight.asked_at - since >= _patience(state):
        return _vanish(state, now), False
    return _retry(state._replace(absent_since=since), now)


def _patience(state: Evidence) -> float:
    """Seconds between two looks that find nothing, until the prompt counts as gone."""
    if not state.known:
        return DELIVERY
    return LATENESS if state.ended else ABSENCE


def misses(state: Evidence, sight: Sight) -> bool:
    """Whether the sight proves that the prompt was absent: not, if it was begun before the prompt was last known."""
    return sight.absent and (state.seen_at is None or sight.asked_at >= state.seen_at)


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
    return state._replace(wake_at=now + state.retry, retry=later), False


def _rest(state: Evidence, now: float) -> tuple[Evidence, bool]:
    return state._replace(wake_at=now + SILENCE, retry=FIRST_RETRY), False


def _vanish(state: Evidence, now: float) -> Evidence:
    return _conclude(state, Vanished(known=state.known, begun=state.running or state.ended), now)


def _conclude(state: Evidence, verdict: Verdict, now: float) -> Evidence:
    """A prompt that had left the queue in silence, long enough before its record was read, had a deaf socket.

    That a record is read before the end is heard says nothing yet: the message may be right behind.
    """
    missed = state.missed_at is not None and now - state.missed_at >= HEARING
    deaf = state.unbroken and not state.ended and missed and not isinstance(verdict, Vanished)
    return state._replace(verdict=verdict, wake_at=None, deaf=deaf)
