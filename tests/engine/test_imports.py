"""What imports leave out, and that nothing is missing afterwards."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from engine.imports import close, hidden


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package in a package, each of which notes that its own code ran."""
    inner = tmp_path / "outside" / "inside"
    inner.mkdir(parents=True)
    (tmp_path / "outside" / "__init__.py").write_text("")
    (inner / "__init__.py").write_text("from outside.inside.large import SIZE\nname = 'open'\n")
    (inner / "small.py").write_text("from outside.inside import __name__ as where\nSIZE = 1\n")
    (inner / "large.py").write_text("SIZE = 9\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "outside.inside"
    for module in [module for module in sys.modules if module.partition(".")[0] == "outside"]:
        del sys.modules[module]


def test_a_module_of_a_closed_package_is_imported_without_the_others(package: str) -> None:
    close(package)
    small = import_module(f"{package}.small")
    assert (small.SIZE, small.where) == (1, package)
    assert f"{package}.large" not in sys.modules


def test_a_closed_package_opens_when_it_is_asked_for_a_name(package: str) -> None:
    close(package)
    import outside.inside  # type: ignore[import-not-found]

    assert outside.inside.SIZE == 9
    assert outside.inside.name == "open"
    with pytest.raises(AttributeError, match="nothing"):
        _ = outside.inside.nothing


def test_a_closed_package_says_that_it_lacks_a_name_that_it_lacks_when_open(package: str) -> None:
    close(package)
    with pytest.raises(ImportError, match="nothing"):
        from outside.inside import nothing  # noqa: F401


def test_a_package_may_put_another_module_in_its_place(package: str, tmp_path: Path) -> None:
    lines = (
        "import sys, types",
        "other = types.ModuleType(__name__)",
        "other.name = 'lazy'",
        "sys.modules[__name__] = other",
    )
    (tmp_path / "outside" / "inside" / "__init__.py").write_text("\n".join(lines))
    close(package)
    from outside.inside import name

    assert name == "lazy"


def test_who_looks_through_all_modules_opens_none(package: str) -> None:
    close(package)
    assert not hasattr(sys.modules[package], "__warningregistry__")
    assert f"{package}.large" not in sys.modules


def test_what_is_imported_stays_as_it_is_and_what_is_not_there_is_not_made_up(package: str) -> None:
    import outside.inside

    close(package)
    close("outside.nowhere")
    assert outside.inside.name == "open"
    assert "outside.nowhere" not in sys.modules


def test_a_package_that_fails_as_it_opens_says_why_each_time(package: str, tmp_path: Path) -> None:
    (tmp_path / "outside" / "inside" / "__init__.py").write_text("raise RuntimeError('broken')\n")
    close(package)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="broken"):
            _ = sys.modules[package].name


def test_who_asks_while_another_opens_a_package_waits_for_it(package: str, tmp_path: Path) -> None:
    lines = ("import threading", "begun.set()", "assert asked.wait(30)", "name = 'open'")
    (tmp_path / "outside" / "inside" / "__init__.py").write_text("\n".join(lines))
    close(package)
    module: Any = sys.modules[package]
    module.begun, module.asked = threading.Event(), threading.Event()
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(getattr, module, "name")
        assert module.begun.wait(30)
        second = threads.submit(getattr, module, "name")
        module.asked.set()
        assert [first.result(30), second.result(30)] == ["open", "open"]


def test_what_is_hidden_is_not_there_until_the_block_ends(package: str) -> None:
    with hidden("outside", "sys", "nowhere"):
        with pytest.raises(ModuleNotFoundError):
            import outside
        import sys as still
    import outside

    assert still is sys
    assert outside.__file__
    assert "nowhere" not in sys.modules


def test_what_other_code_has_imported_before_stays_as_it_is() -> None:
    program = """
from transformers.models.clip.tokenization_clip import CLIPTokenizer
from engine.models import Preload
Preload().perform(None)
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers.models.clip.modeling_clip import CLIPTextModel
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], timeout=120, check=True)


def test_libraries_are_whole_after_the_engine_has_imported_what_it_needs() -> None:
    program = """
import sys
from engine.models import Preload
Preload().perform(None)
extra = {"scipy", "sklearn", "torchvision", "diffusers.models.transformers.transformer_flux"} & set(sys.modules)
assert not extra, extra
from diffusers import FluxTransformer2DModel, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.transformers import SD3Transformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel as same
from diffusers.schedulers.scheduling_dpmsolver_sde import DPMSolverSDEScheduler
from transformers import AutoTokenizer, CLIPTextModel, T5EncoderModel
from transformers.models import clip, t5
import scipy.stats
assert UNet2DConditionModel is same
assert clip.CLIPTextModel is CLIPTextModel and t5.T5EncoderModel is T5EncoderModel
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], timeout=120, check=True)
