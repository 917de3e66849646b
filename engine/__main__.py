"""`python -m engine`: the engine alone, as ComfyUI would be started.

For: composing the engine of its parts; the only module in which the network's side meets the device's. Leaves all work
to the parts.
Invariant: the address is bound before anything slow is loaded; SIGTERM ends the process within seconds, whatever
runs.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import re
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from engine.cache import Cache
from engine.device import EXIT_CODE, Device, end_process
from engine.executor import Executor
from engine.models import Models
from engine.nodes.numbering import Numbering
from engine.nodes.registry import list_nodes
from engine.nodes.spec import Folders, Node
from engine.server import Server, describe_features, listen
from engine.sockets import Hub
from engine.wire import Message

_STOP_PATIENCE = 5.0  # seconds


def read_options(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of the command line. Ends the process where they are wrong."""
    parser = argparse.ArgumentParser(prog="python -m engine", description="A ComfyUI-protocol engine.")
    base = Path("~/.local/share/converter-engine").expanduser()
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=8188, help="port to listen on; 0 takes a free one (%(default)s)")
    parser.add_argument("--base-dir", type=Path, default=base, help="where the folders below are (%(default)s)")
    for name in ("models", "input", "output"):
        parser.add_argument(f"--{name}-dir", type=Path, help=f"folder of {name} (BASE_DIR/{name})")
    parser.add_argument("--temp-dir", type=Path, help="where a folder temp is made, emptied at every start (BASE_DIR)")
    parser.add_argument(
        "--device", type=_read_device, default="cpu", help="what models run on: cpu, cuda, cuda:1, mps (%(default)s)"
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "float16", "bfloat16"),
        help="number format of networks that tolerate a short one (float32 on CPUs, float16 elsewhere)",
    )
    parser.add_argument(
        "--max-rows",
        type=_read_count,
        default=32,
        help="rows of a forward pass, pictures of 512 x 512 or less; of larger ones as many fewer (%(default)s)",
    )
    parser.add_argument(
        "--concurrency", type=_read_count, help="prompts that run at once (8 on CPUs, half of MAX_ROWS elsewhere)"
    )
    parser.add_argument("--history-size", type=int, default=10_000, help="prompts remembered (%(default)s)")
    parser.add_argument("--queue-size", type=int, default=10_000, help="prompts that may wait (%(default)s)")
    parser.add_argument("--cache-entries", type=int, default=1024, help="results of nodes kept (%(default)s)")
    parser.add_argument("--cache-mb", type=int, default=512, help="megabytes of results kept (%(default)s)")
    parser.add_argument(
        "--prompt-mb", type=int, default=4096, help="megabytes of results that a running prompt may hold (%(default)s)"
    )
    parser.add_argument("--models-mb", type=int, default=16384, help="megabytes of models kept (%(default)s)")
    parser.add_argument(
        "--preview-method",
        choices=("auto", "latent2rgb", "none"),
        default="auto",
        help="whether samplers show each step; auto and latent2rgb are the same here (%(default)s)",
    )
    parser.add_argument("--test-nodes", action="store_true", help="add nodes that misbehave on purpose")
    parser.add_argument("--verbose", action="store_true", help="log more")
    options = parser.parse_args(arguments)
    if options.concurrency is None:
        # An accelerator takes as many rows as a pass may have in hardly more time than fewer; most prompts ask for two.
        options.concurrency = 8 if options.device == "cpu" else max(1, options.max_rows // 2)
    return options


def _read_device(text: str) -> str:
    """The name as it is; a wrong one would be noticed only by the first prompt that needs a model."""
    if not re.fullmatch(r"cpu|mps|cuda(:[0-9]+)?", text):
        raise argparse.ArgumentTypeError(f"must be cpu, cuda, cuda:NUMBER or mps, not {text!r}")
    if text != "cpu" and not _has(text):
        raise argparse.ArgumentTypeError(f"there is no {text} on this machine, or torch has no support for it")
    return text


def _has(name: str) -> bool:
    """Whether there is such an accelerator. Takes seconds, since torch has to be imported."""
    import torch

    device = torch.device(name)
    if device.type == "mps":
        return torch.backends.mps.is_available()
    return (device.index or 0) < torch.cuda.device_count()


def _read_count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, not {text!r}")
    return int(text)


def _make_folders(options: argparse.Namespace) -> Folders:
    """The folders, made if missing; what earlier runs left in temp/ is removed."""
    paths = {
        name: (getattr(options, f"{name}_dir") or options.base_dir / name).resolve()
        for name in ("models", "input", "output")
    }
    # A folder of the engine's own inside the one that was named, as in ComfyUI: what was there before stays.
    paths["temp"] = (options.temp_dir or options.base_dir).resolve() / "temp"
    shutil.rmtree(paths["temp"], ignore_errors=True)
    for path in (*paths.values(), paths["models"] / "checkpoints"):
        path.mkdir(parents=True, exist_ok=True)
    return Folders(**paths)


def _say(line: str) -> None:
    sys.stdout.write(f"engine {line}\n")
    sys.stdout.flush()


class Parts(NamedTuple):
    """What carries out prompts. `device` and `executor` are context managers, and do nothing before."""

    device: Device
    models: Models
    executor: Executor


def compose(
    options: argparse.Namespace, registry: Mapping[str, Node], folders: Folders, send: Callable[[Message], None]
) -> Parts:
    """The parts as the options have them."""
    device = Device(options.device, dtype=options.dtype, max_rows=options.max_rows)
    models = Models(device, folders.models, max_bytes=options.models_mb << 20)
    device.make_room = models.make_room
    executor = Executor(
        registry,
        folders,
        send,
        concurrency=options.concurrency,
        services={Device: device, Models: models, Numbering: Numbering()},
        cache=Cache(options.cache_entries, options.cache_mb << 20),
        history_size=options.history_size,
        max_pending=options.queue_size,
        previews=options.preview_method != "none",
        max_held=options.prompt_mb << 20,
        unload=models.unload,
        on_end=end_process,
    )
    return Parts(device, models, executor)


async def _serve(options: argparse.Namespace, arguments: Sequence[str]) -> None:
    folders = _make_folders(options)
    registry = list_nodes(tests=options.test_nodes)
    hub = Hub(describe_features(options.concurrency))
    device, models, executor = compose(options, registry, folders, hub.send)
    with device, executor:
        server = Server(executor, hub, registry, folders, lambda: [device.describe()], arguments)
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopped.set)
        async with listen(server.make_app(), options.host, options.port) as port:
            _say(f"listening on http://{options.host}:{port}")
            threading.Thread(target=models.warm_up, name="warm-up", daemon=True).start()
            await stopped.wait()
            _end_anyway(folders.temp)
    shutil.rmtree(folders.temp, ignore_errors=True)


def _end_anyway(temp: Path) -> None:
    """End the process when stopping takes too long, since a step of a model, or an import, goes on to its end."""

    def end() -> None:
        shutil.rmtree(temp, ignore_errors=True)
        os._exit(0)

    timer = threading.Timer(_STOP_PATIENCE, end)
    timer.daemon = True
    timer.start()


def main(arguments: Sequence[str]) -> int:
    """Run the engine until SIGTERM or SIGINT. Returns the exit status."""
    # torch's threads spin while they wait for each other: where something else wants the processor too, the one that
    # is waited for gets none, and a step of 20 ms takes a second. To be said before torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    options = read_options(arguments)
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING, format="%(levelname)s %(message)s")
    try:
        asyncio.run(_serve(options, arguments))
    except OSError as error:
        sys.stderr.write(f"engine: {error}\n")
        return EXIT_CODE
    return 0


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    # A node that does not look whether it is interrupted keeps its thread; the process does not wait for it.
    os._exit(status)
