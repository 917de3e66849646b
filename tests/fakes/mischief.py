"""Node classes that wait, fail, block and exit on purpose.

Names and inputs are those of the embedded engine's test nodes where both have them, else those of the test pack
that the recordings were made with.
"""

import asyncio
import time
from typing import Any

from tests.fakes.declarations import ANYTHING, Blocker, Done, InputConfig, NodeClass, Stage, each_time, number, real
from tests.fakes.pictures import encode, solid


async def sleep(inputs: dict[str, Any], stage: Stage) -> Done:
    """With progress every 10 ms, and a look at the interrupt flag."""
    started = time.monotonic()
    while (elapsed := time.monotonic() - started) < inputs["seconds"]:
        await stage.progress(elapsed, inputs["seconds"])
        await asyncio.sleep(0.01)
    return Done((inputs["value"],))


async def sleep_deaf(inputs: dict[str, Any], stage: Stage) -> Done:
    """Without progress, and deaf to interrupts."""
    await asyncio.sleep(inputs["seconds"] if "seconds" in inputs else inputs["operation_time"])
    return Done((inputs["value"],))


async def show_previews(inputs: dict[str, Any], stage: Stage) -> Done:
    for step in range(1, inputs["steps"] + 1):
        picture = solid((255 * step // inputs["steps"]) << 16, 64, 64)[0]
        await stage.progress(step, inputs["steps"], encode(picture, "JPEG"))
    return Done((inputs["value"],))


class OutOfMemoryError(RuntimeError):
    """Stands for torch's, and is reported under its name."""

    __module__ = "torch"


KINDS: dict[str, type[Exception]] = {
    "RuntimeError": RuntimeError,
    "ValueError": ValueError,
    "OutOfMemoryError": OutOfMemoryError,
}


async def fail(inputs: dict[str, Any], stage: Stage) -> Done:
    raise KINDS[inputs["kind"]](inputs.get("message", "raised on purpose"))


async def fail_after(inputs: dict[str, Any], stage: Stage) -> Done:
    await asyncio.sleep(inputs["error_after"])
    raise RuntimeError("Intentional async execution error for testing")


async def exit_process(inputs: dict[str, Any], stage: Stage) -> Done:
    await stage.exit()
    return Done((inputs["value"],))


async def pass_on(inputs: dict[str, Any], stage: Stage) -> Done:
    return Done((inputs["value"],))


async def give_text(inputs: dict[str, Any], stage: Stage) -> Done:
    return Done((inputs["text"],))


async def stub_image(inputs: dict[str, Any], stage: Stage) -> Done:
    color = {"BLACK": 0, "WHITE": 0xFFFFFF}.get(inputs["content"], 0x808080)
    return Done((solid(color, inputs["width"], inputs["height"], inputs["batch_size"]),))


async def block(inputs: dict[str, Any], stage: Stage) -> Done:
    blocker = Blocker("Blocked Execution" if inputs["verbose"] else None)
    return Done((blocker if inputs["block"] else inputs["input"],))


async def bad_ui(inputs: dict[str, Any], stage: Stage) -> Done:
    if inputs["how"] == "object":  # ComfyUI's publish loop fails on it, and with that the whole process
        await stage.exit()
    return Done((), {"x": [float("nan")]})


SECONDS = real(1.0, 0.0, 9999.0)
FALSE: InputConfig = ("BOOLEAN", {"default": False})
TEXT: InputConfig = ("STRING", {"default": "", "multiline": True})
VALUE = {"value": ANYTHING}

MISCHIEF: dict[str, NodeClass] = {
    "TestSleep": NodeClass(sleep, {**VALUE, "seconds": SECONDS}, returns=("*",)),
    "TestSleepDeaf": NodeClass(sleep_deaf, {**VALUE, "seconds": SECONDS}, returns=("*",)),
    "TestAsyncTimeout": NodeClass(
        sleep_deaf,
        {**VALUE, "timeout": real(1.0, 0.1, 10.0), "operation_time": real(2.0, 0.0, 10.0)},
        returns=("*",),
    ),
    "TestPreview": NodeClass(show_previews, {**VALUE, "steps": number(4, 1, 10_000)}, returns=("*",)),
    "TestRaise": NodeClass(fail, {**VALUE, "kind": (list(KINDS), {})}, {"message": TEXT}, returns=("*",)),
    "TestAsyncError": NodeClass(fail_after, {**VALUE, "error_after": real(0.5, 0.0, 10.0)}, returns=("*",)),
    "TestExit": NodeClass(exit_process, VALUE, {"code": number(1, 0, 255)}, returns=("*",)),
    "TestChangeAlways": NodeClass(pass_on, VALUE, returns=("*",), fingerprint=each_time),
    "TestText": NodeClass(give_text, {"text": TEXT}, returns=("STRING",)),
    "StubImage": NodeClass(
        stub_image,
        {
            "content": (["WHITE", "BLACK", "NOISE"], {}),
            "height": number(512, 1, 4096),
            "width": number(512, 1, 4096),
            "batch_size": number(1, 1, 1024),
        },
        returns=("IMAGE",),
    ),
    "TestExecutionBlocker": NodeClass(block, {"input": ANYTHING, "block": FALSE, "verbose": FALSE}, returns=("*",)),
    "BadUI": NodeClass(bad_ui, {"how": (["nan", "object"], {})}, output=True),
}
