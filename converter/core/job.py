"""The life of a job: what is done next, on whatever happens.

A job is a ticket (held from admission until its outputs are collected), at times a turn (a place at the engine), and
at most one prompt at a time, whose fate `evidence` tells. This machine decides; the runner performs the effects and
reports back what happened.

Invariants: an outcome is answered exactly once; the ticket is returned exactly once, on every path, and not before
the engine has let go of the job's prompt; nothing is submitted after a cancel or the deadline; an unknown submission
is resolved before another is made; every job ends in a bounded number of steps.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

from converter.core import evidence
from converter.core.deeds import (
    Answer,
    Blame,
    CheckInstance,
    Collect,
    Collected,
    CollectionFailed,
    Delivered,
    Depart,
    Effects,
    Endangered,
    EngineLost,
    Event,
    FileGone,
    FreeMemory,
    Halved,
    InstanceChecked,
    Left,
    LetGo,
    Look,
    Outcome,
    Ready,
    Refused,
    RenewSocket,
    Requeue,
    Stage,
    Staged,
    StagingFailed,
    Submit,
    Succeeded,
    Turn,
    Unreached,
    Withdraw,
    Withdrawn,
)
from converter.core.events import Began, Entered, QueueView, Sight
from converter.core.evidence import Broke, EngineGone, Evidence, Finished, News, Stopped, Vanished, Verdict, Wake
from converter.core.failures import explain
from converter.core.quarantine import KILLS
from converter.core.timing import PARTS
from converter.errors import (
    Canceled,
    DeadlineExceeded,
    EngineDown,
    EngineFailed,
    Fault,
    InvalidWorkflow,
    OutOfMemory,
)

WITHDRAWAL = 1.0
"""Seconds after which an order to the engine to let go of a prompt is repeated."""

LOST_FOR = 5
"""Seconds after which one whose job lost its engine may find another replica."""


class Phase(StrEnum):
    """Where a job stands; the values are public, as the states of `status` events."""

    STAGING = "staging"
    WAITING = "waiting"
    SUBMITTING = "submitting"
    QUEUED = "queued"
    RUNNING = "running"
    CHECKING = "checking"
    COLLECTING = "collecting"
    DELIVERING = "delivering"
    STOPPING = "stopping"
    DONE = "done"


class Timings(NamedTuple):
    """Seconds spent so far, over all attempts; `since` is when the present phase began."""

    since: float
    waiting: float = 0.0
    staging: float = 0.0
    queued: float = 0.0
    executing: float = 0.0
    collecting: float = 0.0


class Job(NamedTuple):
    """The state of a job. `deadline` is a moment, as is `begun`: when its request came.

    attempt: prompts that may have reached the engine, at most `max_attempts`, and one more that is `fresh`. turn: a
    place at the engine is held. alone: its next prompt, or this one, is the only one of ours at the engine; kills:
    engines that died under it while it was. wanted: output nodes without which a success is in doubt. endangered: an
    interrupt of ours may have hit its prompt by mistake. withdrawing: an order to let go of the prompt is under way.
    """

    phase: Phase
    deadline: float
    max_attempts: int
    timings: Timings
    begun: float
    attempt: int = 0
    turn: bool = False
    fresh: bool = False
    alone: bool = False
    kills: int = 0
    wanted: frozenset[str] = frozenset()
    prompt: Evidence | None = None
    endangered: bool = False
    outcome: Outcome | None = None
    withdrawing: bool = False
    withdraw_at: float | None = None


def begin(
    deadline: float,
    max_attempts: int,
    now: float,
    *,
    stages: bool,
    wanted: Iterable[str] = (),
    begun: float | None = None,
) -> tuple[Job, Effects]:
    """A job that was just admitted. `stages`: it has inputs that must be put where the engine can read them; `wanted`:
    the output nodes that will answer, as far as that is known; `begun`: when its request came, if not now.
    """
    phase = Phase.STAGING if stages else Phase.WAITING
    job = Job(phase, deadline, max_attempts, Timings(now), now if begun is None else begun, wanted=frozenset(wanted))
    return job, (Stage() if stages else Ready(),)


def wake_at(job: Job) -> float | None:
    """The next moment at which the machine wants `Wake`, whatever else happens; None: only events matter."""
    if job.phase is Phase.DONE:
        return None
    moments = [job.prompt.wake_at if job.prompt else None, job.withdraw_at]
    moments.append(job.deadline if job.outcome is None else None)
    return min((m for m in moments if m is not None), default=None)


def step(job: Job, event: Event, now: float) -> tuple[Job, Effects]:
    """One step. An event that does not fit the phase changes nothing."""
    if job.phase is Phase.DONE:
        return job, ()
    if isinstance(event, Left):
        return _stop(job, event.fault, now)
    if isinstance(event, EngineLost):
        return _give_up(job, now)
    if isinstance(event, Wake) and job.outcome is None and now >= job.deadline:
        return _stop(job, _late(job, now), now)
    match job.phase:
        case Phase.STAGING | Phase.WAITING:
            return _wait(job, event, now)
        case Phase.SUBMITTING | Phase.QUEUED | Phase.RUNNING:
            return _follow(job, event, now)
        case Phase.STOPPING:
            return _stopping(job, event, now)
        case Phase.CHECKING:
            return _check(job, event, now)
        case Phase.COLLECTING:
            return _collect(job, event, now)
    return (_enter(job, Phase.DONE, now), ()) if isinstance(event, Delivered) else (job, ())


def _wait(job: Job, event: Event, now: float) -> tuple[Job, Effects]:
    match event:
        case Staged() if job.phase is Phase.STAGING:
            return _enter(job, Phase.WAITING, now), (Ready(),)
        case StagingFailed(fault) if job.phase is Phase.STAGING:
            return _end(job, fault, now)
        case Turn(prompt_id, listening) if job.phase is Phase.WAITING:
            if now >= job.deadline:
                return _end(job._replace(turn=True), _late(job, now), now)
            prompt = evidence.submit(prompt_id, now, unbroken=listening, wanted=job.wanted)
            job = _enter(job, Phase.SUBMITTING, now)._replace(attempt=job.attempt + 1, turn=True, prompt=prompt)
            return job, (Submit(prompt_id, job.fresh),)
    return job, ()


def _follow(job: Job, event: Event, now: float) -> tuple[Job, Effects]:
    """A prompt may be heard to run, and to end, before its submission is answered: the phase says nothing of that."""
    unanswered = job.prompt is not None and not job.prompt.answered
    match event:
        case Refused(fault) if unanswered:
            return _end(job, fault, now)
        case Halved(fault) if unanswered:
            job, effects = _stop(job, fault, now)
            job, more = _stopping(job, evidence.Accepted(), now)
            return job, effects + more
        case Unreached() if unanswered:
            return _requeue(job._replace(attempt=job.attempt - 1), now, alone=False)
        case Endangered():
            return job._replace(endangered=True), ()
    return _weigh(job, event, now)


def _weigh(job: Job, event: Event, now: float) -> tuple[Job, Effects]:
    """Hand a piece of news to the evidence and act on its verdict, if there is one."""
    prompt = job.prompt
    if prompt is None or not isinstance(event, News):
        return job, ()
    weighed, look = evidence.step(prompt, event, now)
    job = job._replace(prompt=weighed)
    if weighed.verdict is not None:
        deaf: Effects = (RenewSocket(),) if weighed.deaf else ()
        job, effects = _conclude(job, weighed.verdict, now)
        return job, deaf + effects
    if isinstance(event, Began | Entered):
        job = _enter(job, Phase.RUNNING, now)
    elif weighed.known and weighed.answered and job.phase is Phase.SUBMITTING:
        job = _enter(job, Phase.RUNNING if weighed.running else Phase.QUEUED, now)
    elif isinstance(event, Sight | QueueView) and weighed.running and job.phase is Phase.QUEUED:
        job = _enter(job, Phase.RUNNING, now)
    return job, (Look(prompt.prompt_id),) if look else ()


def _conclude(job: Job, verdict: Verdict, now: float) -> tuple[Job, Effects]:
    match verdict:
        case Finished():
            ran = job.prompt is not None and job.prompt.begun
            job = _enter(job, Phase.COLLECTING, now)
            served = job.timings.executing if ran and job.attempt == 1 else None
            return job._replace(turn=False), (LetGo(served), Collect(verdict))
        case Broke(failure):
            fault = explain(failure)
            job, effects = _end(job, fault, now)
            return job, (*effects, FreeMemory()) if isinstance(fault, OutOfMemory) else effects
        case Stopped() if job.endangered:
            return _again(job, now, alone=False)
        case Stopped():
            return _end(job, Canceled("the prompt was interrupted at the engine by someone else"), now)
        case Vanished() if job.prompt is not None and job.prompt.gone:
            return _crashed(job, now)
    return _enter(job, Phase.CHECKING, now), (CheckInstance(),)


def _check(job: Job, event: Event, now: float) -> tuple[Job, Effects]:
    """The prompt is gone from the engine without a record: why?"""
    verdict = job.prompt.verdict if job.prompt else None
    match event:
        case EngineGone() | InstanceChecked(same=False):
            return _crashed(job, now)
        case InstanceChecked() if isinstance(verdict, Vanished) and not verdict.known:
            return _again(job, now, alone=False)
        case InstanceChecked() if isinstance(verdict, Vanished) and verdict.begun:
            return _end(job, EngineFailed("the engine ran the workflow but holds no record of how it ended"), now)
        case InstanceChecked():
            return _end(job, Canceled("the engine has neither the prompt nor its record: someone else removed it"), now)
    return job, ()


def _crashed(job: Job, now: float) -> tuple[Job, Effects]:
    """The engine is gone and the prompt with it. Whatever was there may have been the cause, heard to run or not: a
    killer can be too quick to be heard. So all are tried again alone, and only who kills alone is surely to blame.
    """
    if not job.alone:
        return _again(job, now, alone=True, crashed=True)
    job = job._replace(kills=job.kills + 1)
    if job.kills >= KILLS:
        ended, effects = _end(job, InvalidWorkflow(f"the workflow killed the engine {KILLS} times while alone"), now)
    else:
        ended, effects = _again(job, now, alone=True, crashed=True)
    return ended, (Blame(), *effects)


def _again(job: Job, now: float, *, alone: bool, crashed: bool = False) -> tuple[Job, Effects]:
    if job.attempt >= job.max_attempts + job.fresh:
        return _end(job, EngineFailed(f"the engine did not take this job, or lost it, {job.attempt} times"), now)
    return _requeue(job, now, alone=alone, crashed=crashed)


def _requeue(job: Job, now: float, *, alone: bool, crashed: bool = False) -> tuple[Job, Effects]:
    """Wait for another turn. One that has to be alone stays so: it was near a death whose cause is not known."""
    held: Effects = (LetGo(None),) if job.turn else ()
    alone = alone or job.alone
    job = _enter(job, Phase.WAITING, now)._replace(turn=False, prompt=None, endangered=False, alone=alone)
    return job, (*held, Requeue(alone, crashed))


def _give_up(job: Job, now: float) -> tuple[Job, Effects]:
    """There is no engine any more. What it has made may still be had, and what is being fetched comes to an end."""
    if job.phase in (Phase.COLLECTING, Phase.DELIVERING):
        return job, ()
    if job.attempt:
        return _end(job, EngineFailed("the engine died under this job and is not started again"), now)
    return _end(job, EngineDown("the engine died too often and is not started again", retry_after=LOST_FOR), now)


def _collect(job: Job, event: Event, now: float) -> tuple[Job, Effects]:
    match event:
        case Collected():
            job = _enter(job, Phase.DELIVERING, now)._replace(outcome=Succeeded())
            return job, (Depart(), Answer(Succeeded()))
        case FileGone() if not job.fresh:
            return _requeue(job._replace(fresh=True), now, alone=False)
        case FileGone():
            return _end(job, EngineFailed("an output was gone before it could be fetched, twice"), now)
        case CollectionFailed(fault):
            return _end(job, fault, now)
    return job, ()


def _stop(job: Job, fault: Fault, now: float) -> tuple[Job, Effects]:
    """Answer with the fault; what is at the engine must be let go of before the ticket is returned."""
    if job.phase is Phase.STOPPING:
        return job, ()
    if job.phase is Phase.DELIVERING:
        return _enter(job, Phase.DONE, now), ()
    prompt = job.prompt
    if job.phase not in (Phase.SUBMITTING, Phase.QUEUED, Phase.RUNNING) or prompt is None:
        return _end(job, fault, now)
    job = _enter(job, Phase.STOPPING, now)._replace(outcome=fault)
    if not prompt.answered:  # a submission under way can't be recalled: its answer is waited for
        return job, (Answer(fault),)
    return job._replace(withdrawing=True), (Answer(fault), Withdraw(prompt.prompt_id))


def _stopping(job: Job, event: Event, now: float) -> tuple[Job, Effects]:
    """Order the engine to let go of the prompt, one order at a time, until a look shows that it has."""
    prompt = job.prompt
    if prompt is None or (isinstance(event, Refused | Unreached) and not prompt.answered):
        return _close(job, now)
    if isinstance(event, Sight) and prompt.known and evidence.misses(prompt, event):
        return _close(job, now)
    if isinstance(event, Halved):
        event = evidence.Accepted()
    if isinstance(event, Withdrawn) and job.withdrawing:
        job = job._replace(withdrawing=False, withdraw_at=now + WITHDRAWAL)
        event, prompt = Wake(), prompt._replace(wake_at=now)
    weighed, look = evidence.step(prompt, event, now) if isinstance(event, News) else (prompt, False)
    if weighed.verdict is not None:
        return _close(job._replace(prompt=weighed), now)
    effects: Effects = (Look(weighed.prompt_id),) if look else ()
    due = not job.withdrawing and (job.withdraw_at is None or now >= job.withdraw_at)
    if weighed.answered and due:
        job = job._replace(withdrawing=True, withdraw_at=None)
        effects = (*effects, Withdraw(weighed.prompt_id))
    return job._replace(prompt=weighed), effects


def _end(job: Job, fault: Fault, now: float) -> tuple[Job, Effects]:
    """Answer with the fault and close; nothing of the job is at the engine any more."""
    answer: Effects = () if job.outcome is not None else (Answer(fault),)
    closed, effects = _close(job._replace(outcome=job.outcome or fault), now)
    return closed, answer + effects


def _close(job: Job, now: float) -> tuple[Job, Effects]:
    held: Effects = (LetGo(None),) if job.turn else ()
    job = _enter(job, Phase.DONE, now)._replace(turn=False)
    return job, (*held, Depart())


def _enter(job: Job, phase: Phase, now: float) -> Job:
    """Change the phase, and book the time spent in the one that ends."""
    if phase is job.phase:
        return job
    bucket = _BUCKETS.get(job.phase)
    spent = {"since": now}
    if bucket is not None:
        spent[bucket] = getattr(job.timings, bucket) + now - job.timings.since
    return job._replace(phase=phase, timings=job.timings._replace(**spent))


_BUCKETS: Mapping[Phase, str] = {
    Phase.STAGING: "staging",
    Phase.WAITING: "waiting",
    Phase.SUBMITTING: "queued",
    Phase.QUEUED: "queued",
    Phase.CHECKING: "queued",
    Phase.RUNNING: "executing",
    Phase.COLLECTING: "collecting",
}


def timings(job: Job, now: float) -> dict[str, float]:
    """Seconds by phase, the one that is under way included."""
    moment = _enter(job, Phase.DONE, now).timings
    return {part: getattr(moment, part) for part in PARTS}


def _late(job: Job, now: float) -> Fault:
    spent = timings(job, now)
    longest = max(spent, key=lambda name: spent[name])
    detail = f"the timeout passed while the job was {job.phase.value}; most of the time went into {longest}"
    rounded = {name: round(seconds, 3) for name, seconds in {**spent, "total": now - job.begun}.items()}
    return DeadlineExceeded(detail, phase=job.phase.value, timings=rounded)
