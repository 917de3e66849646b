"""Prompts of nodes that every ComfyUI has and that need no model; each is new to any cache."""

import random
from typing import Any

from tests.fakes.talker import Graph, image_graph


def fresh_color() -> int:
    """0xRRGGBB; the chance that another test had it is one in millions."""
    return random.SystemRandom().randrange(1 << 24)


def fresh_graph(**options: Any) -> Graph:
    return image_graph(fresh_color(), **options)


def slow_graph(pictures: int = 300) -> Graph:
    """Many pictures over the websocket: progress and a look at the interrupt flag for each, a second or more in all."""
    graph = fresh_graph(size=256, batch=pictures)
    graph["2"] = {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}}
    return graph
