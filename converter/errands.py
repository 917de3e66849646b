"""What a run has done outside: staging, submitting, looking, withdrawing, collecting.

Each errand ends in the event that tells the job's machine how it went; deciding on them is left to the machine.
Invariant: every trouble that the link can make becomes an event; what is open for a job's outputs, and what was
staged for it, is let go of when its errands end.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from converter.core import deeds, evidence
from converter.core.deeds import Event
from converter.core.events import Picture, Record, Sight
from converter.core.order import Order
from converter.core.outputs import Output, collect
from converter.core.refusals import find_dropped, normalize_refusal, partial_refusal
from converter.core.workflow import SENDER, freshen, prepare
from converter.errors import EngineFailed, ExecutionFailed, Fault
from converter.link import answers
from converter.link.client import LinkError, Unreachable
from converter.link.engine import Follower
from converter.means import Means
from converter.media.inputs import Staging
from converter.media.outputs import Broken, Gone, Item, open_items

log = logging.getLogger(__name__)

READINGS = 2
"""Further attempts to open outputs, each once the engine has answered, before it counts as unable to give them."""


class Errands:
    """The errands of one job, as an async context manager. `instance`: the engine that the prompt was given to.

    `outputs` say what the prompt made, `items` are these made ready to be sent.
    """

    def __init__(self, means: Means, order: Order, staging: Staging) -> None:
        self.instance: str | None = None
        self.outputs: Sequence[Output] = ()
        self.items: Sequence[Item] = ()
        self._folders: frozenset[str] = frozenset()
        self._prompt_id = ""
        self._means = means
        self._order = order
        self._staging = staging
        self._workflow: Mapping[str, Any] = order.workflow
        self._pictures: list[Picture] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()
        await self._staging.remove()

    def strip(self, *, lasting: bool) -> None:
        """Let go of what a job that has ended has no more use for; `lasting`: its outputs are still to be had."""
        if not lasting:
            self._means.removal.give_back(self._folders)
            self._folders = frozenset()
        self._workflow, self._pictures = {}, []
        self._order = Order(self._order.id, {}, self._order.timeout)
        self._staging = self._staging.emptied()

    async def stage(self) -> Event:
        """Put the inputs where the engine can read them."""
        try:
            self._workflow = await self._staging.carry_out()
        except Fault as fault:
            return deeds.StagingFailed(fault)
        return deeds.Staged()

    async def submit(self, prompt_id: str, follower: Follower, *, fresh: bool) -> Event:
        """Submit the workflow; the follower hears of its prompt from before that on."""
        link = self._means.link
        # What is removed must lie in a folder of its own, and no cache must name it later.
        change = freshen if fresh or self._means.removal.active else prepare
        self._prompt_id = prompt_id
        body = answers.prompt_body(
            change(self._workflow, prompt_id),
            prompt_id,
            link.client_id or prompt_id,
            self._order.extra_data,
            self._order.selection.nodes,
        )
        self.instance = self._means.watch.instance
        self._pictures = []
        link.follow(prompt_id, follower)
        try:
            submission = await link.client.submit(body)
        except Unreachable as error:
            self._means.watch.unreachable(str(error))
            return deeds.Unreached()
        except LinkError as error:
            log.info("a submission was not answered: %s", error, extra=self._order.about)
            return evidence.Unanswered()
        if isinstance(submission, answers.Refused):
            if self._staging.endangered:
                return deeds.Refused(EngineFailed("the engine has restarted, and may have lost the inputs of this job"))
            return deeds.Refused(normalize_refusal(submission.status, submission.body, self._means.watch.classes))
        if submission.prompt_id != prompt_id:
            await self.withdraw(submission.prompt_id)
            return deeds.Refused(EngineFailed("the engine chooses its own prompt ids: it is too old for this service"))
        if submission.node_errors:
            return deeds.Halved(partial_refusal(submission.node_errors))
        return evidence.Accepted()

    def receive(self, picture: Picture) -> bool:
        """Take a picture that is an output; whether it is one."""
        node = self._order.workflow.get(picture.node_id or "")
        sent = isinstance(node, Mapping) and node["class_type"] == SENDER
        if sent:
            self._pictures.append(picture)
        return sent

    async def look(self, prompt_id: str) -> Event:
        """The queue first, then the history: in this order a prompt that ends in between is not overlooked."""
        client = self._means.link.client
        self._means.metrics.looks.inc()
        try:
            view = await client.queue()
            running, pending = prompt_id in view.running, prompt_id in view.pending
            record = None if running or pending else await _read_record(self._means, prompt_id)
        except LinkError as error:
            log.debug("a look failed: %s", error, extra=self._order.about)
            return evidence.Unseen(unreachable=isinstance(error, Unreachable))
        return Sight(view.asked_at, running, pending, record)

    async def check_instance(self) -> Event:
        """Whether the engine is still the one that the prompt was given to."""
        return deeds.InstanceChecked(same=await self._means.watch.check_instance() == self.instance)

    async def withdraw(self, prompt_id: str) -> Event:
        """Make the engine let go of the prompt; the machine looks whether it has, and asks again if not."""
        try:
            await self._means.link.withdraw(prompt_id)
        except LinkError as error:
            log.debug("a withdrawal failed: %s", error, extra=self._order.about)
        return deeds.Withdrawn()

    async def collect(self, finished: evidence.Finished, *, hold: int | None, heard: bool) -> Event:
        """Open the outputs, and send them where the order wants them. `heard`: nothing that the engine has sent was
        missed. Up to `hold` bytes are read at once; None is for a job that nobody waits for: all it may.

        What stays open takes one of the bounded number of deliveries, for which a job waits with its ticket in hand.
        """
        await self._stack.aclose()  # what an earlier prompt had open, its place among the deliveries included
        workflow, selection = self._order.workflow, self._order.selection
        dropped = find_dropped(workflow, selection.nodes, self._means.watch.output_classes, finished.requested or ())
        if dropped is not None:
            return deeds.CollectionFailed(dropped)
        if not heard and _sends(workflow, selection.nodes):
            return deeds.FileGone()
        self.outputs = collect(workflow, finished.outputs, selection.nodes, self._pictures, self._order.labels)
        self._means.removal.give_back(self._folders)  # an earlier prompt's
        files = (output.file for output in self.outputs if output.file is not None)
        self._folders = self._means.removal.take(files, self._prompt_id)
        if not self.outputs:
            return deeds.CollectionFailed(ExecutionFailed("the workflow ran to its end and made no output"))
        if hold is not None:
            await self._stack.enter_async_context(self._means.deliveries)
        dispatch = self._means.dispatch
        bound = dispatch.hold(self._order, self._means.keep_bytes if hold is None else hold)
        try:
            self.items = await dispatch.send(self._order, self.outputs, await self._open(bound))
        except Gone:
            return deeds.FileGone()
        except Fault as fault:
            return deeds.CollectionFailed(fault)
        except Broken as error:
            log.warning("an output could not be read: %s", error, extra=self._order.about)
            return deeds.CollectionFailed(EngineFailed("an output could not be read from the engine"))
        return deeds.Collected()

    async def _open(self, bound: int) -> Sequence[Item]:
        """Open the outputs; where that fails, again: files outlive an engine that is restarted."""
        retrying = AsyncRetrying(
            stop=stop_after_attempt(1 + READINGS),
            wait=wait_random_exponential(0.1, max=2.0),
            retry=retry_if_exception_type(Broken),
            sleep=self._pause,
            reraise=True,
        )
        return await retrying(open_items, self._means.files, self.outputs, self._order.selection, self._stack, bound)

    async def _pause(self, seconds: float) -> None:
        """Until the engine has answered, however long that takes: the job's deadline bounds it."""
        await asyncio.sleep(seconds)
        await self._means.watch.check_instance()


def _sends(workflow: Mapping[str, Any], nodes: Collection[str] | None) -> bool:
    """Whether an output is only heard of."""
    return any(workflow[node]["class_type"] == SENDER for node in (workflow if nodes is None else nodes))


async def _read_record(means: Means, prompt_id: str) -> Record | None:
    try:
        return await means.link.client.history(prompt_id)
    except EngineFailed:  # there is a record, so the prompt has ended; how, it does not say
        return Record(success=False, outputs={})
