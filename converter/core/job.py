"""The life of a job: what is done next, on whatever happens.

A job is a ticket (held from admission until its outputs are collected), at times a turn (a place at the engine), and
at most one prompt at a time, whose fate `evidence` tells. This machine decides; the runner performs the effects and
reports back what happened.

Invariants: an outcome is answered exactly once; the ticket is returned exactly once, on every path, and not before
the engine has let go of the job's prompt; nothing is submitted after a cancel or the deadline; an unknown submission
is resolved before another is made; every job ends in a bounded number of steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from converter.core import evidence
from converter.core.events import Began, Entered, Failed, QueueView, Sight, Sound
from converter.core.evidence import Broke, EngineGone, Evidence, Finished, News, Stopped, Vanished, Verdict, Wake
from converter.core.workflow import scrub
from converter.errors import Canceled, DeadlineExceeded, EngineFailed, ExecutionFailed, Fault, OutOfMemory

WITHDRAWAL = 1.0
"""Seconds after which an order to the engine to let go of a prompt is repeated."""


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


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds spent so far, over all attempts; `since` is when the present phase began."""

    since: float
    waiting: float = 0.0
    staging: float = 0.0
    queued: float = 0.0
    executing: float = 0.0
    collecting: float = 0.0


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The caller gets outputs."""


Outcome = Succeeded | Fault


# What happened -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Staged:
    """All inputs are where the engine can read them."""


@dataclass(frozen=True, slots=True)
class StagingFailed:
    """An input can't be staged."""

    fault: Fault


@dataclass(frozen=True, slots=True)
class Turn:
    """A place at the engine is ours; `prompt_id` is fresh; `listening`: an open socket will hear of the prompt."""

    prompt_id: str
    listening: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """The engine refused the prompt (400): it has left no trace there."""

    fault: Fault


@dataclass(frozen=True, slots=True)
class Halved:
    """The engine accepted the prompt without some of its outputs (200 with node errors)."""

    fault: Fault


@dataclass(frozen=True, slots=True)
class Unreached:
    """The engine could not be reached: what was asked of it surely did not happen."""


@dataclass(frozen=True, slots=True)
class InstanceChecked:
    """Whether the engine is still the one to which the prompt was given."""

    same: bool


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The engine was told to let go of the prompt."""


@dataclass(frozen=True, slots=True)
class Collected:
    """The outputs are held, or open for streaming."""


@dataclass(frozen=True, slots=True)
class FileGone:
    """An output names a file that the engine no longer has: a cached answer outlived its file."""


@dataclass(frozen=True, slots=True)
class CollectionFailed:
    """The outputs can't be had, for another reason."""

    fault: Fault


@dataclass(frozen=True, slots=True)
class Delivered:
    """The answer is out, or will never be taken."""


@dataclass(frozen=True, slots=True)
class Left:
    """Nobody wants the job any more: its caller left, it was canceled, evicted, or the replica gives it up."""

    fault: Fault


Event = (
    News
    | Staged
    | StagingFailed
    | Turn
    | Refused
    | Halved
    | Unreached
    | InstanceChecked
    | Withdrawn
    | Collected
    | FileGone
    | CollectionFailed
    | Delivered
    | Left
)


# What is to be done ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stage:
    """Put the inputs where the engine can read them; answer with Staged or StagingFailed."""


@dataclass(frozen=True, slots=True)
class Ready:
    """Tell admission that the job may be given a turn."""


@dataclass(frozen=True, slots=True)
class Submit:
    """Submit the workflow; `fresh`: under save prefixes that nobody has used. Answer with what became of it."""

    prompt_id: str
    fresh: bool


@dataclass(frozen=True, slots=True)
class Look:
    """Read the queue, then the history; answer with a Sight or Unseen."""

    prompt_id: str


@dataclass(frozen=True, slots=True)
class CheckInstance:
    """Find out whether the engine has restarted; answer with InstanceChecked (or EngineGone)."""


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Tell the engine to let go of the prompt and of no other; answer with Withdrawn."""

    prompt_id: str


@dataclass(frozen=True, slots=True)
class Collect:
    """Open or fetch the outputs; answer with Collected, FileGone or CollectionFailed."""

    finished: Finished


@dataclass(frozen=True, slots=True)
class Answer:
    """Tell everybody who waits for the job how it ended."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class LetGo:
    """Give the turn back. `served`: seconds for which the prompt occupied the engine, where that is known."""

    served: float | None


@dataclass(frozen=True, slots=True)
class Requeue:
    """Wait for another turn; `alone`: with no other prompt of ours at the engine, since this one may have killed it."""

    alone: bool


@dataclass(frozen=True, slots=True)
class Depart:
    """Give the ticket back."""


@dataclass(frozen=True, slots=True)
class Unstage:
    """Remove what was staged, where that is possible."""


@dataclass(frozen=True, slots=True)
class FreeMemory:
    """Make the engine free its memory."""


@dataclass(frozen=True, slots=True)
class RenewSocket:
    """The websocket stayed silent about something that happened: replace it."""


Effect = (
    Stage
    | Ready
    | Submit
    | Look
    | CheckInstance
    | Withdraw
    | Collect
    | Answer
    | LetGo
    | Requeue
    | Depart
    | Unstage
    | FreeMemory
    | RenewSocket
)
Effects = tuple[Effect, ...]


# The machine -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Job:
    """The state of a job. `attempt` counts prompts that may have reached the engine; `deadline` is a moment."""

    phase: Phase
    deadline: float
    max_attempts: int
    timings: Timings
    attempt: int = 0
    turn: bool = False
    fresh: bool = False
    prompt: Evidence | None = None
    outcome: Outcome | None = None
    withdraw_at: float | None = None


def begin(deadline: float, max_attempts: int, now: float, *, stages: bool) -> tuple[Job, Effects]:
    """A job that was just admitted; `stages`: it has inputs that must be put where the engine can read them."""
    phase = Phase.STAGING if stages else Phase.WAITING
    return Job(phase, deadline, max_attempts, Timings(now)), (Stage() if stages else Ready(),)


def wake_at(job: Job) -> float | None:
    """The next moment at which the machine wants `Wake`, whatever else happens; None: only events matter."""
    moments = [job.prompt.wake_at if job.prompt else None, job.withdraw_at]
    moments.append(job.deadline if job.outcome is None else None)
    return min((m for m in moments if m is not None), default=None)


def step(job: Job, event: Event, now: float) -> tuple[Job, Effects]:
    """One step. An event that does not fit the phase changes nothing."""
    if job.phase is Phase.DONE:
        return job, ()
    if isinstance(event, Left):
        return _stop(job, event.fault, now)
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
        case Phase.DELIVERING:
            return (_enter(job, Phase.DONE, now), (Unstage(),)) if isinstance(event, Delivered) else (job, ())


def _wait(job: Job, event: Event, now: float) -> tuple[Job, Effects]:
    match event:
        case Staged() if job.phase is Phase.STAGING:
            return _enter(job, Phase.WAITING, now), (Ready(),)
        case StagingFailed(fault) if job.phase is Phase.STAGING:
            return _end(job, fault, now)
        case Turn(prompt_id, listening) if job.phase is Phase.WAITING:
            prompt = evidence.submit(prompt_id, now, unbroken=listening)
            job = replace(_enter(job, Phase.SUBMITTING, now), attempt=job.attempt + 1, turn=True, prompt=prompt)
            return job, (Submit(prompt_id, job.fresh),)
    return job, ()


def _follow(job: Job, event: Event, now: float) -> tuple[Job, Effects]:
    submitting = job.phase is Phase.SUBMITTING
    match event:
        case Refused(fault) if submitting:
            return _end(job, fault, now)
        case Halved(fault) if submitting:
            job, effects = _stop(job, fault, now)
            job, more = _stopping(job, evidence.Accepted(), now)
            return job, effects + more
        case Unreached() if submitting:
            return _requeue(replace(job, attempt=job.attempt - 1), now, alone=False)
    return _weigh(job, event, now)


def _weigh(job: Job, event: Event, now: float) -> tuple[Job, Effects]:
    """Hand a piece of news to the evidence and act on its verdict, if there is one."""
    prompt = job.prompt
    if prompt is None or not isinstance(event, News):
        return job, ()
    weighed, look = evidence.step(prompt, event, now)
    job = replace(job, prompt=weighed)
    if weighed.verdict is not None:
        deaf: Effects = (RenewSocket(),) if weighed.deaf else ()
        crashed = isinstance(event, EngineGone)
        job, effects = _crashed(job, now) if crashed else _conclude(job, weighed.verdict, now)
        return job, deaf + effects
    if isinstance(event, Began | Entered) and job.phase is not Phase.STOPPING:
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
            return replace(job, turn=False), (LetGo(served), Collect(verdict))
        case Broke(failure):
            fault = _fault(failure)
            job, effects = _end(job, fault, now)
            return job, (*effects, FreeMemory()) if isinstance(fault, OutOfMemory) else effects
        case Stopped():
            return _end(job, Canceled("the prompt was interrupted at the engine by someone else"), now)
        case Vanished():
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
            return _end(job, Canceled("the prompt was removed from the engine's queue by someone else"), now)
    return job, ()


def _crashed(job: Job, now: float) -> tuple[Job, Effects]:
    """The engine is gone and the prompt with it. One that was running may have been the cause."""
    suspect = job.prompt is not None and job.prompt.running
    return _again(job, now, alone=suspect)


def _again(job: Job, now: float, *, alone: bool) -> tuple[Job, Effects]:
    if job.attempt >= job.max_attempts:
        return _end(job, EngineFailed(f"the engine failed under this job {job.attempt} times"), now)
    return _requeue(job, now, alone=alone)


def _requeue(job: Job, now: float, *, alone: bool) -> tuple[Job, Effects]:
    held: Effects = (LetGo(None),) if job.turn else ()
    job = replace(_enter(job, Phase.WAITING, now), turn=False, prompt=None)
    return job, (*held, Requeue(alone))


def _collect(job: Job, event: Event, now: float) -> tuple[Job, Effects]:
    match event:
        case Collected():
            job = replace(_enter(job, Phase.DELIVERING, now), outcome=Succeeded())
            return job, (Depart(), Answer(Succeeded()))
        case FileGone() if not job.fresh:
            return _requeue(replace(job, fresh=True), now, alone=False)
        case FileGone():
            return _end(job, EngineFailed("the engine names an output file that it does not have"), now)
        case CollectionFailed(fault):
            return _end(job, fault, now)
        case EngineGone() | Unreached():
            return _again(job, now, alone=False)
    return job, ()


def _stop(job: Job, fault: Fault, now: float) -> tuple[Job, Effects]:
    """Answer with the fault; what is at the engine must be let go of before the ticket is returned."""
    if job.phase is Phase.STOPPING:
        return job, ()
    if job.phase is Phase.DELIVERING:
        return _enter(job, Phase.DONE, now), (Unstage(),)
    if job.phase not in (Phase.SUBMITTING, Phase.QUEUED, Phase.RUNNING) or job.prompt is None:
        return _end(job, fault, now)
    job = replace(_enter(job, Phase.STOPPING, now), outcome=fault)
    if not job.prompt.answered:  # a submission under way can't be recalled: its answer is waited for
        return job, (Answer(fault),)
    return replace(job, withdraw_at=now + WITHDRAWAL), (Answer(fault), Withdraw(job.prompt.prompt_id))


def _stopping(job: Job, event: Event, now: float) -> tuple[Job, Effects]:
    prompt = job.prompt
    if prompt is None or isinstance(event, Refused | Unreached | EngineGone):
        return _close(job, now)
    if isinstance(event, Sight) and event.absent and prompt.known:
        return _close(job, now)
    if isinstance(event, Halved):
        event = evidence.Accepted()
    effects: Effects = ()
    if isinstance(event, Withdrawn):
        event = Wake()
        prompt = replace(prompt, wake_at=now)
    weighed, look = evidence.step(prompt, event, now) if isinstance(event, News) else (prompt, False)
    if weighed.verdict is not None:
        return _close(replace(job, prompt=weighed), now)
    if look:
        effects = (Look(weighed.prompt_id),)
    due = job.withdraw_at is None or now >= job.withdraw_at
    if weighed.answered and due and not isinstance(event, Sound):
        job = replace(job, withdraw_at=now + WITHDRAWAL)
        effects = (*effects, Withdraw(weighed.prompt_id))
    return replace(job, prompt=weighed), effects


def _end(job: Job, fault: Fault, now: float) -> tuple[Job, Effects]:
    """Answer with the fault and close; nothing of the job is at the engine any more."""
    answer: Effects = () if job.outcome is not None else (Answer(fault),)
    closed, effects = _close(replace(job, outcome=job.outcome or fault), now)
    return closed, answer + effects


def _close(job: Job, now: float) -> tuple[Job, Effects]:
    held: Effects = (LetGo(None),) if job.turn else ()
    job = replace(_enter(job, Phase.DONE, now), turn=False, withdraw_at=None)
    return job, (*held, Depart(), Unstage())


def _enter(job: Job, phase: Phase, now: float) -> Job:
    """Change the phase, and book the time spent in the one that ends."""
    if phase is job.phase:
        return job
    bucket = _BUCKETS.get(job.phase)
    spent = {"since": now}
    if bucket is not None:
        spent[bucket] = getattr(job.timings, bucket) + now - job.timings.since
    return replace(job, phase=phase, timings=replace(job.timings, **spent))


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
    names = ("waiting", "staging", "queued", "executing", "collecting")
    return {name: getattr(moment, name) for name in names}


def _late(job: Job, now: float) -> Fault:
    spent = timings(job, now)
    longest = max(spent, key=lambda name: spent[name])
    detail = f"the timeout passed while the job was {job.phase.value}; most of the time went into {longest}"
    rounded = {name: round(seconds, 3) for name, seconds in spent.items()}
    return DeadlineExceeded(detail, phase=job.phase.value, timings=rounded)


_MEMORY_ERRORS = ("OutOfMemoryError", "OOMError", "OOM_EXCEPTION")


def _fault(failure: Failed) -> Fault:
    """A node's exception in the caller's terms. The type tells memory trouble: the text may be the caller's own."""
    where: dict[str, Any] = {"node_id": failure.node_id, "class_type": failure.class_type}
    message = scrub(failure.message)
    if failure.exception_type.rpartition(".")[2] in _MEMORY_ERRORS:
        return OutOfMemory("the engine ran out of accelerator memory", **where)
    return ExecutionFailed(message or "the node gave no reason", exception_type=failure.exception_type or None, **where)
