"""What happens to a job, and what is done for it: the words between the machine and the runner.

`core.job` decides on the one and demands the other; this file holds the words only.
"""

from dataclasses import dataclass

from converter.core.evidence import Finished, News
from converter.errors import Fault


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
class Endangered:
    """An interrupt that is meant for another prompt is on its way, and may hit this one."""


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
class EngineLost:
    """The engine is gone, and none will come in its place."""


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
    | Endangered
    | Collected
    | FileGone
    | CollectionFailed
    | Delivered
    | EngineLost
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
    """Wait for another turn. `alone`: with no other prompt of ours at the engine, since this one may have killed it;
    `crashed`: the engine has died, and another runs the workflow from its start.
    """

    alone: bool
    crashed: bool = False


@dataclass(frozen=True, slots=True)
class Blame:
    """The engine died while it had this workflow and nothing else of ours."""


@dataclass(frozen=True, slots=True)
class Depart:
    """Give the ticket back."""


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
    | Blame
    | Depart
    | FreeMemory
    | RenewSocket
)
Effects = tuple[Effect, ...]
