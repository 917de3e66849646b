"""What tests of the engine share: a tiny checkpoint, made once, a device, and the models on it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from engine.device import Device
from engine.models import Models
from engine.tiny import build_tiny


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoints folder that holds one checkpoint, `tiny`."""
    folder = tmp_path_factory.mktemp("models") / "checkpoints"
    build_tiny(folder / "tiny")
    return folder


@pytest.fixture(scope="session")
def flow_checkpoints(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoints folder with `sd3` and `flux`."""
    from tests.engine.flow_families import build_flux, build_sd3

    folder = tmp_path_factory.mktemp("flow") / "checkpoints"
    build_sd3(checkpoints / "tiny", folder / "sd3")
    build_flux(checkpoints / "tiny", folder / "flux")
    return folder


@pytest.fixture(scope="session")
def flow_models(device: Device, flow_checkpoints: Path) -> Models:
    """The models around `flow_checkpoints`."""
    return Models(device, flow_checkpoints.parent)


@pytest.fixture(scope="session")
def inpainting_checkpoints(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoints folder with `inpainting`."""
    from tests.engine.families import build_inpainting

    folder = tmp_path_factory.mktemp("inpainting") / "checkpoints"
    build_inpainting(checkpoints / "tiny", folder / "inpainting")
    return folder


@pytest.fixture(scope="session")
def inpainting_models(device: Device, inpainting_checkpoints: Path) -> Models:
    """The models around `inpainting_checkpoints`."""
    return Models(device, inpainting_checkpoints.parent)


@pytest.fixture(scope="session")
def device() -> Iterator[Device]:
    """A device thread on the CPU."""
    # Threads that wait for each other in every small operation crawl on a machine that is busy with other tests.
    torch.set_num_threads(1)
    with Device() as device:
        yield device


@pytest.fixture(scope="session")
def models(device: Device, checkpoints: Path) -> Models:
    """The models around `checkpoints`."""
    return Models(device, checkpoints.parent)
