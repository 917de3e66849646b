"""`python -m benchmarks.networks`: what a pass of the demo model's networks costs in another layout, or compiled.

Both ways take turns pass by pass in one process, and a ratio is the median over the pairs, so that what else the
machine does falls on both. Leaves prompts and pictures to `batching` and `demo_model`. Invariant: both ways have the
same weights and are given the same rows.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, TypeAlias

from benchmarks.report import Finding, describe_machine, lay_out, write_document

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
_PASSES: Sequence[tuple[str, str, tuple[int, ...]]] = (
    ("unet", "2 rows of 128 x 128", (2, 4, 16, 16)),
    ("unet", "16 rows of 128 x 128", (16, 4, 16, 16)),
    ("decoder", "a picture of 128 x 128", (1, 4, 16, 16)),
    ("decoder", "8 pictures of 128 x 128", (8, 4, 16, 16)),
    ("decoder", "a picture of 512 x 512", (1, 4, 64, 64)),
    ("encoder", "a picture of 128 x 128", (1, 3, 128, 128)),
    ("encoder", "a picture of 512 x 512", (1, 3, 512, 512)),
)


def _predict(unet: Any, latents: Tensor) -> Tensor:
    embeddings = torch.ones(len(latents), _TOKENS, unet.config.cross_attention_dim)
    answer: Tensor = unet(latents, torch.full((len(latents),), 500), embeddings, return_dict=False)[0]
    return answer


def _decode(vae: Any, latents: Tensor) -> Tensor:
    pictures: Tensor = vae.decode(latents, return_dict=False)[0]
    return pictures


def _encode(vae: Any, pictures: Tensor) -> Tensor:
    latents: Tensor = vae.encode(pictures).latent_dist.mode()
    return latents


_WAYS: dict[str, Pass] = {"unet": _predict, "decoder": _decode, "encoder": _encode}


def _read() -> dict[str, Any]:
    """The networks by the names of their passes, as they are read: rows of pixels one channel after the other."""
    source, place = Source("demo", SHIPPED), Place(torch.device("cpu"), torch.float32)
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
    ratios = []
    for number in range(pairs):
        spent = {}
        for network in (plain, other) if number % 2 else (other, plain):
            begun = perf_counter()
            run(network, given)
            spent[id(network)] = perf_counter() - begun
        ratios.append(spent[id(other)] / spent[id(plain)])
    return [
        Finding(part, "time of a pass", median(ratios), "x", samples=ratios),
        Finding(part, "its first pass", first, "s"),
        Finding(part, "largest difference", 1e6 * apart, "e-6"),
    ]


def _measure(pairs: int, *, compiled: bool) -> list[Finding]:
    torch.set_grad_enabled(False)
    plain = _read()
    others = {"channels last": {name: _lay(network, torch.channels_last) for name, network in plain.items()}}
    if compiled:
        others["compiled"] = {"unet": torch.compile(deepcopy(plain["unet"]), dynamic=True)}
    findings: list[Finding] = []
    for title, networks in others.items():
        for name, rows, shape in _PASSES:
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
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the findings there")
    options = parser.parse_args(words)
    machine = describe_machine()
    findings = _measure(options.pairs, compiled=options.compile)
    print("\n".join(lay_out(findings)))
    if options.json is not None:
        write_document(options.json, machine, findings)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
