"""What every part is told: which engine, how thoroughly, and with which flags the converter is started."""

import os
from dataclasses import dataclass

from benchmarks.clients import Bare
from benchmarks.processes import MB, Engine
from benchmarks.workflows import repeat

PICTURE = 3 * MB
"""Bytes of a picture as people make them (1024 x 1024 pixels)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`flags` are added to those of every converter."""

    engine: Engine
    quick: bool
    flags: tuple[str, ...]

    @property
    def rounds(self) -> int:
        """In how many rounds the modes take turns."""
        return 4 if self.quick else 12


async def plant_picture(bare: Bare, tag: str, size: int = PICTURE) -> bytes:
    """Make the picture that the engine has cached for `tag` one of so many bytes, which it gives."""
    data = b"\x89PNG" + os.urandom(size - 4)
    await bare.replace(await bare.execute(repeat(tag)), data)
    return data
