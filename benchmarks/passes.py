"""`python -m benchmarks.passes`: what a pass costs for so many prompts at once, and how much of it a GPU computes.

Of `demo`, or of another checkpoint, such as `benchmarks.large` makes, on the processor or on a GPU, within this
process: no server, no previews, no files. Leaves whole prompts to `batching`, and layouts to `networks`. Invariant:
prompts begin and end together, so that each pass has all of them.
"""

import argparse
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter

from benchmarks.report import Finding, describe_machine, publish

if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as the engine has it, and before torch is loaded

import torch
from torch.profiler import ProfilerActivity, profile

from engine.checkpoints import Placement, read_part
from engine.conditioning import Conditioning
from engine.device import Device, Place
from engine.noise import seed_items
from engine.pipelines import Autoencoder, Decoding, Denoiser, TextEncoding, predict_all
from engine.sampling import Guidance, Sampling
from engine.schedules import space_sigmas
from engine.shelves import SHIPPED, Source
from engine.texts import TextEncoder
from engine.transfer import fetch

PROMPTS = (1, 2, 4, 8, 16)
STEPS = 20
PICTURES = (1, 4)


class _Gate:
    """Keeps the device until it is opened, so that what is asked meanwhile goes together."""

    def __init__(self) -> None:
        self.open = threading.Event()

    def perform(self, place: Place) -> None:
        self.open.wait()


@contextmanager
def _together(device: Device) -> Iterator[Callable[[], float]]:
    """What is asked for in the block begins when the given function is called, which tells when that was."""
    gate = _Gate()
    device.submit(gate)

    def begin() -> float:
        gate.open.set()
        return perf_counter()

    try:
        yield begin
    finally:
        gate.open.set()


def _draw(device: Device, denoiser: Denoiser, cues: Sequence[Conditioning], side: int, prompts: int) -> float:
    """Seconds that so many prompts take from the first question to the last answer."""
    sigmas = space_sigmas(denoiser.schedule, "normal", STEPS)
    with _together(device) as begin:
        ends = []
        for number in range(prompts):
            run = Sampling(
                latent=torch.zeros(1, denoiser.channels, side, side),
                generators=seed_items(number, [0]),
                sampler="euler",
                sigmas=sigmas,
                schedule=denoiser.schedule,
                prediction_type=denoiser.prediction_type,
                guidance=Guidance(cues[number], cues[-1], 2.0),
            )
            ends.append(device.follow(predict_all(denoiser, run), lambda *_: None))
        begun = begin()
        for end in ends:
            fetch(end.result())
    return perf_counter() - begun


def _decode(device: Device, autoencoder: Autoencoder, side: int, pictures: int) -> float:
    with _together(device) as begin:
        ends = [
            device.submit(Decoding(autoencoder, torch.randn(1, autoencoder.channels, side, side)))
            for _ in range(pictures)
        ]
        begun = begin()
        for end in ends:
            end.result()
    return perf_counter() - begun


def _share_of_kernels(draw: Callable[[], float]) -> float:
    """Per cent of the time in which the GPU computes."""
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        seconds = draw()
    microseconds = sum(float(event.self_device_time_total) for event in seen.key_averages())
    return 100 * microseconds / 1e6 / seconds


def _measure(device: Device, source: Source, on_gpu: bool) -> list[Finding]:
    parts = {name: read_part(source, name) for name in ("model", "clip", "vae")}
    for part in parts.values():
        device.submit(Placement(part)).result()
    denoiser, encoder, autoencoder = parts["model"], parts["clip"], parts["vae"]
    assert isinstance(denoiser, Denoiser)
    assert isinstance(encoder, TextEncoder)
    assert isinstance(autoencoder, Autoencoder)
    side = denoiser.network.module.config.sample_size
    texts = [f"a red circle, {number}" for number in range(max(PROMPTS))] + [""]
    cues = [Conditioning((device.submit(TextEncoding.of(encoder, text)).result(),)) for text in texts]
    findings = []
    for prompts in PROMPTS:
        draw = partial(_draw, device, denoiser, cues, side, prompts)
        draw()  # finds and loads the kernels for so many rows
        size = f"{prompts} at once, {8 * side} x {8 * side}"
        findings.append(Finding("a pass", size, 1e3 * draw() / STEPS, "ms"))
    for pictures in PICTURES:
        _decode(device, autoencoder, side, pictures)
        seconds = _decode(device, autoencoder, side, pictures)
        findings.append(Finding("decoding", f"{pictures} at once", 1e3 * seconds, "ms"))
    if on_gpu:  # last, since a GPU that was profiled is asked more slowly from then on
        for prompts in PROMPTS[-2:]:
            busy = _share_of_kernels(partial(_draw, device, denoiser, cues, side, prompts))
            findings.append(Finding("the GPU computes", f"{prompts} at once", busy, "%"))
    return findings


def main(words: Sequence[str]) -> int:
    """Measure and print. Returns the exit status, which does not depend on what was found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.passes", description="Costs of a pass in company.")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (%(default)s)")
    parser.add_argument("--dtype", help="number format of the UNet (float32 on CPUs, float16 elsewhere)")
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED, metavar="FOLDER", help="in place of that of demo")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the findings there")
    options = parser.parse_args(words)
    machine = describe_machine()
    source = Source(options.checkpoint.name, options.checkpoint)
    with Device(options.device, dtype=options.dtype) as device:
        findings = _measure(device, source, options.device.startswith("cuda"))
    publish(options.json, machine, findings)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
