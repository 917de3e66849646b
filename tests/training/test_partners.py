"""Partners: equal weights in all processes, of the mean of their gradients."""

from functools import partial
from pathlib import Path

import torch

from training.partners import do_once, meet, own_share, rank, run_partners
from training.states import Trainee


def learn_together(folder: Path) -> None:
    """One step on the share of four rows; each partner writes its weights, and what the first one did for all."""
    network = torch.nn.Linear(2, 1, bias=False)
    torch.nn.init.ones_(network.weight)
    trainee = Trainee(network, folder / "state.pt", 0.1, "cpu")
    rows = torch.tensor([[1.0, 0.0], [0.0, 8.0], [3.0, 0.0], [0.0, 0.0]])[own_share()]
    trainee.learn(network(rows).mean(), 1.0)
    gradient = network.weight.grad
    done = do_once(lambda: rank() + 7)
    meet()
    torch.save({"gradient": gradient, "weight": network.weight.data, "done": done}, folder / f"{len(rows)}-{rank()}.pt")


def test_two_partners_learn_what_one_learns_from_the_whole(tmp_path: Path) -> None:
    run_partners(1, partial(learn_together, tmp_path))
    run_partners(2, partial(learn_together, tmp_path))
    alone, *partners = (torch.load(tmp_path / name, weights_only=True) for name in ("4-0.pt", "2-0.pt", "2-1.pt"))
    for partner in partners:
        assert partner["weight"].equal(alone["weight"])
        assert partner["gradient"].equal(alone["gradient"])
        assert partner["done"] == 7
