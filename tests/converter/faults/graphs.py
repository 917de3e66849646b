"""Workflows for whole runs over the scripted engine: each makes what one test wants to see, and little else."""

from typing import Any

Graph = dict[str, Any]

LARGE = {"extra_pnginfo": {"filler": "x" * 600_000}}
"""`extra_data` that make a saved picture too large to be held: the engine writes them into the file."""


def picture(color: int, *, prefix: str = "faults", save: str = "SaveImage", size: int = 16, batch: int = 1) -> Graph:
    """EmptyImage to SaveImage (or another node that takes pictures): one picture of one colour."""
    inputs = {"width": size, "height": size, "batch_size": batch, "color": color}
    named = {"filename_prefix": prefix} if save == "SaveImage" else {}
    return {
        "1": {"class_type": "EmptyImage", "inputs": inputs},
        "2": {"class_type": save, "inputs": {"images": ["1", 0], **named}},
    }


def two_pictures(first: int, second: int) -> Graph:
    """Two branches of nothing in common, saved by nodes 2 and 4."""
    other = picture(second, prefix="second")
    return {
        **picture(first, prefix="first"),
        "3": other["1"],
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "second"}},
    }


def passed_through(class_type: str, color: int = 1, **inputs: Any) -> Graph:
    """A picture that goes through a node with an input `value` before it is saved; the node has the id 9."""
    graph = picture(color)
    graph["9"] = {"class_type": class_type, "inputs": {"value": ["1", 0], **inputs}}
    graph["2"]["inputs"]["images"] = ["9", 0]
    return graph


def text(words: str) -> Graph:
    """A text and no file."""
    return {
        "1": {"class_type": "TestText", "inputs": {"text": words}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }


def loaded(data: str) -> Graph:
    """A picture that comes with the request, inverted."""
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": data}},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "loaded"}},
    }
