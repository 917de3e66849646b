"""`python -m benchmarks.networks`: what a pass of a model's networks costs in another layout, or compiled.

Of `demo`, or of another checkpoint, such as `benchmarks.large` makes; on a GPU, or on the processor, there also with
one thread. Both ways take turns pass by pass in one process, and a ratio is the median over the pairs, so that what
else the machine does falls on both. Leaves prompts and pictures to `batching` and `demo_model`. Invariant: both ways
have the same weights and are given the same rows.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, TypeAlias

from benchmarks.report import Finding, describe_machine, publish

if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as the engine has it, and before torch is loaded

import torch
from torch import Tensor

from engine.checkpoints import Placement, read_part
from engine.device import Place
from engine.networks import Unet
from engine.pipelines import Autoencoder, Denoiser
from engine.shelves import SHIPPED, Source

Pass: TypeAlias = Callable[[Any, Tensor], Tensor]

_TOKENS = 77
_MAX_DECODED = 4
"""Pictures of 512 x 512 that a pass decodes (`--max-rows`)."""


def _list_passes(side: int) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Network, words and rows of each pass; `side` is that of a latent of the model."""
    for rows in (2, 8, 16):
        yield "unet", f"{rows} rows of {8 * side} x {8 * side}", (rows, 4, side, side)
    for each in sorted({side, 64}):
        yield "decoder", f"a picture of {8 * each} x {8 * each}", (1, 4, each, each)
        yield "encoder", f"a picture of {8 * each} x {8 * each}", (1, 3, 8 * each, 8 * each)
    many = _MAX_DECODED if side == 64 else 8
    yield "decoder", f"{many} pictures of {8 * side} x {8 * side}", (many, 4, side, side)


def _predict(unet: Any, latents: Tensor) -> Tensor:
    embeddings = torch.ones(len(latents), _TOKENS, unet.config.cross_attention_dim)
    times = torch.full((len(latents),), 500, device=unet.device)
    sent = (given.to(unet.device, unet.dtype) for given in (latents, embeddings))
    answer: Tensor = unet(next(sent), times, next(sent), return_dict=False)[0]
    return answer.to("cpu", torch.float32)


def _decode(vae: Any, latents: Tensor) -> Tensor:
    pictures: Tensor = vae.decode(latents.to(vae.device), return_dict=False)[0]
    return pictures.cpu()


def _encode(vae: Any, pictures: Tensor) -> Tensor:
    latents: Tensor = vae.encode(pictures.to(vae.device)).latent_dist.mode()
    return latents.cpu()


_WAYS: dict[str, Pass] = {"unet": _predict, "decoder": _decode, "encoder": _encode}


def _read(source: Source, place: Place) -> dict[str, Any]:
    """The networks by the names of their passes, as they are read: rows of pixels one channel after the other."""
    networks: dict[str, Any] = {}
    for part in (read_part(source, "model"), read_part(source, "vae")):
        Placement(part).perform(place)
        match part:
            case Denoiser(network=Unet(module=network)):
                networks["unet"] = network
            case Autoencoder(vae=network):
                networks["decoder"] = networks["encoder"] = network
    return {name: _lay(network, torch.contiguous_format) for name, network in networks.items()}


def _lay(network: Any, layout: torch.memory_format) -> Any:
    """A copy in a layout."""
    move: Any = torch.nn.Module.to
    return move(deepcopy(network), memory_format=layout)


def _compare(part: str, run: Pass, given: Tensor, plain: Any, other: Any, pairs: int) -> list[Finding]:
    expected = run(plain, given)
    begun = perf_counter()
    apart = float((run(other, given) - expected).abs().max())
    first = perf_counter() - begun
    ratios, usual = [], []
    for number in range(pairs):
        spent = {}
        for network in (plain, other) if number % 2 else (other, plain):
            begun = perf_counter()
            run(network, given)
            spent[id(network)] = perf_counter() - begun
        usual.append(spent[id(plain)])
        ratios.append(spent[id(other)] / spent[id(plain)])
    return [
        Finding(part, "time of a pass", median(ratios), "x", samples=ratios),
        Finding(part, "a pass as it is", 1e3 * median(usual), "ms", samples=usual),
        Finding(part, "its first pass", first, "s"),
        Finding(part, "largest difference", 1e6 * apart, "e-6"),
    ]


class _WithOneThread:
    """A UNet that leaves all but one of the processor's threads alone."""

    def __init__(self, unet: Any) -> None:
        self._unet = unet

    def __getattr__(self, name: str) -> Any:
        return getattr(self._unet, name)

    def __call__(self, *given: Any, **options: Any) -> Any:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return self._unet(*given, **options)
        finally:
            torch.set_num_threads(threads)


def _measure(plain: dict[str, Any], pairs: int, *, compiled: bool) -> list[Finding]:
    others = {"channels last": {name: _lay(network, torch.channels_last) for name, network in plain.items()}}
    if plain["unet"].device.type == "cpu":
        others["one thread"] = {"unet": _WithOneThread(plain["unet"])}
    if compiled:
        others["compiled"] = {"unet": torch.compile(deepcopy(plain["unet"]), dynamic=True)}
    findings: list[Finding] = []
    for title, networks in others.items():
        for name, rows, shape in _list_passes(plain["unet"].config.sample_size):
            if name in networks:
                given = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
                part = f"{title}: {name}, {rows}"
                findings += _compare(part, _WAYS[name], given, plain[name], networks[name], pairs)
    return findings


def main(words: Sequence[str]) -> int:
    """Measure and print. Returns the exit status, which does not depend on what was found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.networks", description="Costs of a pass.")
    parser.add_argument("--pairs", type=int, default=20, help="passes of each way (default: 20)")
    parser.add_argument("--compile", action="store_true", help="compile the UNet as well, which takes minutes")
    parser.add_argument("--device", default="cpu", help="cpu or cuda; UNets are float16 there (%(default)s)")
    parser.add_argument(
        "--checkpoint", type=Path, default=SHIPPED, metavar="FOLDER", help="demo, unless another is named"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the findings there")
    options = parser.parse_args(words)
    machine = describe_machine()
    torch.set_grad_enabled(False)
    source = Source(options.checkpoint.name, options.checkpoint)
    dtype = torch.float32 if options.device == "cpu" else torch.float16
    plain = _read(source, Place(torch.device(options.device), dtype))
    findings = _measure(plain, options.pairs, compiled=options.compile)
    publish(options.json, machine, findings)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
