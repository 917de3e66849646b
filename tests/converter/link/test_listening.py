"""Prompts that were told to go are listened to while the engine has them: they tell whether it lives."""

from collections.abc import Callable
from typing import Any

from converter.core.events import Alive, QueueView
from converter.link.engine import EngineLink


class Client:
    """An engine with these prompts in its queue."""

    def __init__(self) -> None:
        self.running: tuple[str, ...] = ()
        self.meanwhile: Callable[[], None] = lambda: None

    async def queue(self, *, timeout: float) -> QueueView:
        view = QueueView(0.0, self.running, ())
        self.meanwhile()
        return view

    async def cancel(self, prompt_id: str) -> bool:
        return prompt_id in self.running


class Listener:
    """Counts signs of life."""

    def __init__(self) -> None:
        self.signs = 0

    def progressed(self) -> None:
        self.signs += 1

    def socket_changed(self, *, connected: bool) -> None: ...


class Follower:
    """Hears nothing but that its engine is gone."""

    node_class = None

    def hear(self, sound: object) -> None: ...

    def engine_gone(self, *, ended: bool) -> None: ...


def make() -> tuple[Any, Any, EngineLink]:
    client: Any = Client()
    listener: Any = Listener()
    link = EngineLink(client, listener)
    link.connected("socket")
    follower: Any = Follower()
    link.follow("prompt", follower)
    return client, listener, link


async def test_a_prompt_is_listened_to_until_it_has_left_the_queue() -> None:
    client, listener, link = make()
    client.running = ("prompt",)
    await link.withdraw("prompt")
    link.forget("prompt")
    for signs in (1, 2):
        await link.read_queue(timeout=1.0)
        assert link.hears("prompt")
        link.message("prompt", Alive())
        assert listener.signs == signs
    client.running = ()
    await link.read_queue(timeout=1.0)
    assert not link.hears("prompt")
    link.message("prompt", Alive())
    assert listener.signs == 2


async def test_one_that_is_followed_is_listened_to_before_the_engine_has_it() -> None:
    _, listener, link = make()
    await link.read_queue(timeout=1.0)
    link.message("prompt", Alive())
    assert (link.hears("prompt"), listener.signs) == (True, 1)


async def test_one_that_was_not_told_to_go_has_the_time_of_strangers() -> None:
    """Its caller has left, and the engine is one that ends nothing: who knows at which node it is by now?"""
    client, listener, link = make()
    client.running = ("other",)
    await link.withdraw("prompt")
    link.forget("prompt")
    link.message("prompt", Alive())
    assert (link.hears("prompt"), listener.signs) == (False, 0)


async def test_one_that_comes_after_the_view_was_made_is_not_taken_for_gone() -> None:
    client, _, link = make()
    client.running = ("prompt",)
    await link.withdraw("prompt")
    client.running, client.meanwhile = (), lambda: link.forget("prompt")
    await link.read_queue(timeout=1.0)
    assert link.hears("prompt")
    client.meanwhile = lambda: None
    await link.read_queue(timeout=1.0)
    assert not link.hears("prompt")


async def test_nothing_is_heard_of_an_engine_that_is_gone() -> None:
    client, listener, link = make()
    client.running = ("prompt",)
    await link.withdraw("prompt")
    link.forget("prompt")
    link.engine_gone(ended=True)
    link.message("prompt", Alive())
    assert listener.signs == 0


async def test_strangers_are_none_of_ours() -> None:
    _, listener, link = make()
    link.message("stranger", Alive())
    assert (link.hears("stranger"), listener.signs) == (False, 0)
