"""Train the demo model: `python -m training FOLDER`.

For: flags and processes. Leaves what is trained, and in which order, to `stages`.
Invariant: none of its own; what runs in several processes can't be defined here, where they would not find it.
"""

import argparse
from functools import partial
from pathlib import Path

import torch

from training.partners import run_partners
from training.stages import train


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m training", description="Train the demo model; go on where it was.")
    parser.add_argument("folder", type=Path, help="where states, reports and the model are kept")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU, in all processes")
    parser.add_argument("--from", dest="origin", type=Path, metavar="MODEL", help="go on from a model: engine/demo")
    parser.add_argument("--reader-steps", type=int, default=1500, help="of the text encoder")
    parser.add_argument("--autoencoder-steps", type=int, default=12_000)
    parser.add_argument("--pieces", type=int, default=12, help="of the training set, 2000 pictures each")
    parser.add_argument("--denoiser-steps", type=int, default=5000)
    parser.add_argument("--decoder-steps", type=int, default=1500, help="at the end, of the decoder alone")
    parser.add_argument("--measure-every", type=int, default=500, help="steps of the denoiser")
    parser.add_argument("--measured", type=int, default=100, help="captions of one shape, and as many of two")
    parser.add_argument("--processes", type=int, default=1, help="that share each batch; on a CPU, one for each core")
    arguments = parser.parse_args()
    run_partners(arguments.processes, partial(train, arguments))


if __name__ == "__main__":
    main()
