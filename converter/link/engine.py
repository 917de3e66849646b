"""The link: one engine as the rest of the converter sees it, and who among us follows which of its prompts.

Joins client and session. Leaves to others: what is submitted and why (`runner`), what state the engine is in
(`watch`). Invariant: what the socket says of a prompt reaches the follower of that prompt and nobody else.
"""

import logging
from asyncio import get_running_loop
from collections.abc import Collection, Iterable
from typing import Protocol

from converter.core import pace
from converter.core.events import Picture, QueueView, Sound
from converter.link.client import EngineClient, LinkError
from converter.link.session import Session

log = logging.getLogger(__name__)

HEEDS_IDS = (0, 3, 64)
"""The first version of ComfyUI that was seen to heed the prompt id of an interrupt; older ones stop whatever runs."""


class Follower(Protocol):
    """Who is told about one prompt; on the loop, so every method is quick and raises nothing.

    `node_class` is the class of the node that runs, as far as the follower was told.
    """

    @property
    def node_class(self) -> str | None: ...

    def wants_progress(self) -> bool:
        """Whether a snapshot of progress is worth decoding just now."""

    def hear(self, sound: Sound) -> None:
        """A sound of the prompt."""

    def show(self, picture: Picture) -> None:
        """A preview."""

    def glance(self, view: QueueView) -> None:
        """A read of the engine's whole queue."""

    def socket_lost(self) -> None:
        """The websocket that would have told of the prompt is gone."""

    def socket_back(self) -> None:
        """Another websocket is open."""

    def engine_gone(self, *, ended: bool) -> None:
        """The engine to which the prompt was given is gone; `ended`: and there is no other yet."""

    def endangered(self) -> None:
        """An interrupt that is meant for another prompt may hit this one."""


class Listener(Protocol):
    """Who is told about the engine as a whole."""

    def progressed(self) -> None:
        """A prompt of ours shows a sign of life."""

    def socket_changed(self, *, connected: bool) -> None:
        """The websocket was opened or lost."""


class EngineLink:
    """One engine. `client_id` is that of the open websocket, None while there is none.

    `departed`: prompts that were forgotten since the last `read_queue` began, so its view may still show them.
    """

    def __init__(self, client: EngineClient, listener: Listener) -> None:
        self.client = client
        self.client_id: str | None = None
        self.departed: set[str] = set()
        self._listener = listener
        self._followers: dict[str, Follower] = {}
        self._heard_by: dict[str, str | None] = {}
        self._dismissed: set[str] = set()
        self._pace = pace.Pace()
        self._session: Session | None = None
        self._cancels = True
        self._heeds_ids: bool | None = None
        self._interrupting = 0

    @property
    def prompts(self) -> Collection[str]:
        """The prompts that are ours."""
        return self._followers.keys()

    def attach(self, session: Session) -> None:
        """The session that can be told to renew its socket."""
        self._session = session

    def follow(self, prompt_id: str, follower: Follower) -> None:
        """Tell the follower about the prompt, from here on."""
        self._followers[prompt_id] = follower
        self._heard_by[prompt_id] = self.client_id
        if self._interrupting:
            follower.endangered()

    def forget(self, prompt_id: str | None) -> None:
        """Nobody follows the prompt any more. One that was told to go is listened to for as long as the engine has it:
        others may go on in their own time, as strangers do.
        """
        if prompt_id is not None:
            self._followers.pop(prompt_id, None)
            self.departed.add(prompt_id)
            if prompt_id not in self._dismissed:
                self._hush(prompt_id)

    def _hush(self, prompt_id: str) -> None:
        """Listen to the prompt no more."""
        self._dismissed.discard(prompt_id)
        self._heard_by.pop(prompt_id, None)
        self._pace = pace.leave(self._pace, prompt_id)

    def hears(self, prompt_id: str) -> bool:
        """Whether the open websocket is the one to which the engine tells the prompt's progress."""
        return self.client_id is not None and self._heard_by.get(prompt_id) == self.client_id

    def explain_silence(self, prompts: Iterable[str]) -> float:
        """Seconds of silence of these running prompts that the pace of their nodes explains."""
        return pace.explain(self._pace, prompts)

    async def read_queue(self, *, timeout: float) -> QueueView:
        """The engine's whole queue; raises LinkError."""
        self.departed.clear()
        view = await self.client.queue(timeout=timeout)
        # One that has departed since may have come after the view was made.
        for prompt_id in self._dismissed - self._followers.keys() - {*view.running, *view.pending, *self.departed}:
            self._hush(prompt_id)
        return view

    def glance(self, view: QueueView) -> None:
        """Show a read of the whole queue to every follower."""
        for follower in list(self._followers.values()):
            follower.glance(view)

    def engine_gone(self, *, ended: bool) -> None:
        """Tell every follower that the engine is gone with all that it knew; `ended`: and there is no other yet."""
        self._cancels, self._heeds_ids = True, None
        for prompt_id in self._dismissed - self._followers.keys():
            self._hush(prompt_id)
        for follower in list(self._followers.values()):
            follower.engine_gone(ended=ended)

    def renew_socket(self) -> None:
        """The socket stayed silent about something that happened."""
        if self._session is not None:
            self._session.renew()

    async def withdraw(self, prompt_id: str) -> None:
        """Make the engine let go of one prompt, pending or running, and of no other; raises LinkError.

        Newer ComfyUI cancels in one step. Older: a pending one is deleted, a running one interrupted by its id. Between
        ComfyUI's check of that id and its flag the prompt may end, and the flag hits the one after it. So nothing is
        interrupted while a stranger's prompt is next, and ours are told that they may be hit. An engine that heeds no
        id would stop whatever runs by then: there a running prompt is left to its end.
        """
        if self._cancels and (canceled := await self.client.cancel(prompt_id)) is not None:
            if canceled:
                self._dismiss(prompt_id)
            return
        self._cancels = False
        view = await self.client.queue()
        if prompt_id in view.pending:
            await self.client.delete(prompt_id)
        elif prompt_id in view.running and self._are_ours(view.pending) and await self._heeds():
            await self._interrupt(prompt_id)

    def _are_ours(self, prompts: Collection[str]) -> bool:
        return all(prompt_id in self._followers or prompt_id in self.departed for prompt_id in prompts)

    async def _heeds(self) -> bool:
        """Whether the engine heeds the prompt id of an interrupt; asked once for each start of it."""
        if self._heeds_ids is None:
            self._heeds_ids = await self.client.version() >= HEEDS_IDS
            if not self._heeds_ids:
                log.warning("this engine can't interrupt a prompt by its id: running ones are left to their end")
        return self._heeds_ids

    async def _interrupt(self, prompt_id: str) -> None:
        self._interrupting += 1
        try:
            for other, follower in list(self._followers.items()):
                if other != prompt_id:
                    follower.endangered()
            await self.client.interrupt(prompt_id)
            self._dismiss(prompt_id)
        finally:
            self._interrupting -= 1

    def _dismiss(self, prompt_id: str) -> None:
        """The running prompt was told to go."""
        if prompt_id in self._heard_by:
            self._dismissed.add(prompt_id)

    async def free_memory(self) -> None:
        """Make the engine unload its models and empty its cache, once the running prompt is done."""
        try:
            await self.client.free()
        except LinkError as error:
            log.warning("the engine was not told to free its memory: %s", error)

    # session.Listener ------------------------------------------------------------------------------------------------

    def connected(self, client_id: str) -> None:
        """A fresh websocket is open."""
        self.client_id = client_id
        self._listener.socket_changed(connected=True)
        for follower in list(self._followers.values()):
            follower.socket_back()

    def disconnected(self, reason: str) -> None:
        """The websocket is gone."""
        log.info("the engine's websocket is gone: %s", reason)
        self.client_id = None
        self._listener.socket_changed(connected=False)
        for follower in list(self._followers.values()):
            follower.socket_lost()

    def wants_progress(self, prompt_id: str) -> bool:
        """Whether the prompt's follower wants a snapshot just now."""
        follower = self._followers.get(prompt_id)
        return follower is not None and follower.wants_progress()

    def message(self, prompt_id: str, sound: Sound) -> None:
        """Hand a sound to the prompt's follower; strangers' are dropped."""
        if prompt_id in self._heard_by:
            self._listener.progressed()
        follower = self._followers.get(prompt_id)
        if follower is not None:
            follower.hear(sound)
            if self.hears(prompt_id):
                self._pace = pace.hear(self._pace, prompt_id, sound, follower.node_class, get_running_loop().time())

    def picture(self, picture: Picture) -> None:
        """Hand a preview to its prompt's follower."""
        follower = self._followers.get(picture.prompt_id) if picture.prompt_id else None
        if follower is not None:
            follower.show(picture)

    def status(self, remaining: int) -> None:
        """The depth that the engine announces; the truth is read from `/queue`."""
